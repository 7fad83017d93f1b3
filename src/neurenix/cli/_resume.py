"""`neurenix resume`: go on with a fit that was interrupted, with the options that it was begun with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from . import _fit
from ._arguments import Options
from ._folders import is_finished, stored_options

if TYPE_CHECKING:
    import jsonargparse


def parser() -> Options:
    """The options of `neurenix resume`."""
    options = Options("resume", "Go on with an interrupted fit.", "neurenix resume runs/efficientnet-lite0-flowers")
    options.parser.add_argument("run", nargs="?", help="The run folder that `neurenix fit` printed.")
    return options


def run(arguments: jsonargparse.Namespace) -> None:
    """Do what is left of the fit; of a finished one, say again what came out."""
    if not arguments.run:
        raise ConfigurationError("resume needs the run's folder: neurenix resume RUN.")
    folder = Path(arguments.run)
    stored = stored_options(folder)
    print(f"{folder} is {'finished' if is_finished(folder) else 'not finished'}")
    again = _fit.parser().parser.parse_object({**stored, "output": str(folder)})
    _fit.run(again)
