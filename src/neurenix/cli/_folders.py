"""Which folder a command's run has, and what is kept there so that `neurenix resume` needs no options."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..storage import read_json, write_json
from ..training import RUN_FILE, runs_root

if TYPE_CHECKING:
    import jsonargparse

COMMAND_FILE = "command.json"
_HOW = ("config", "output", "resume", "strict", "checkpoint_every", "on_save_error", "num_workers")


def choose_folder(arguments: jsonargparse.Namespace) -> Path:
    """The folder of a `fit`: --output, else that of the same command where it is unfinished, else a new one.

    The command's options are stored in it before anything is computed.
    """
    options = json.loads(json.dumps(arguments.clone().as_dict(), default=str))
    job = {name: value for name, value in options.items() if name not in _HOW}
    folder = Path(arguments.output) if arguments.output else _default(job)
    if not (folder / COMMAND_FILE).exists() or arguments.resume is False:
        write_json(folder / COMMAND_FILE, {"command": "fit", "options": options})
    return folder


def stored_options(folder: Path) -> dict[str, Any]:
    """The options of the `fit` that was begun in a folder."""
    if not (folder / COMMAND_FILE).is_file():
        raise ConfigurationError(
            f"{folder} holds no {COMMAND_FILE}, so `neurenix fit` was not begun there; give the folder that it printed."
        )
    options = read_json(folder / COMMAND_FILE)["options"]
    return {name: value for name, value in options.items() if name not in ("config", "output", "resume")}


def _default(job: dict[str, Any]) -> Path:
    stem = f"{job['model']}-{Path(job['data']).stem}"
    for number in count(1):
        folder = runs_root() / (stem if number == 1 else f"{stem}-{number}")
        if not folder.exists() or (_job_of(folder) == job and not is_finished(folder)):
            return folder
    raise AssertionError("a free name is always found")


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder came to its end."""
    path = folder / RUN_FILE
    return path.is_file() and read_json(path).get("status") == "finished"


def _job_of(folder: Path) -> dict[str, Any] | None:
    if not (folder / COMMAND_FILE).is_file():
        return None
    options = read_json(folder / COMMAND_FILE).get("options", {})
    return {name: value for name, value in options.items() if name not in _HOW}
