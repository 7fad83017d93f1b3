"""`neurenix fetch`: download weights, pin their version, check their hash; afterwards they load offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..models import ARCHITECTURES
from ..transfer import load_pretrained_model
from ._arguments import Options

if TYPE_CHECKING:
    import jsonargparse


def parser() -> Options:
    """The options of `neurenix fetch`."""
    options = Options("fetch", "Download weights once.", "neurenix fetch resnet50 bert-base-uncased")
    options.parser.add_argument("names", nargs="*", help="Pretrained models; `neurenix models` lists them.")
    options.parser.add_argument("--weights", type=str, default=None, help="Which weights; the usual ones by default.")
    return options


def run(arguments: jsonargparse.Namespace) -> None:
    """Load each once, which fetches, pins and checks every file that it needs."""
    if not arguments.names:
        raise ConfigurationError("fetch needs names: neurenix fetch resnet50 …; `neurenix models` lists them.")
    for name in arguments.names:
        ARCHITECTURES.canonical(name)
    for name in arguments.names:
        weights = arguments.weights or next(iter(ARCHITECTURES[name].weights), None)
        if weights is None:
            raise ConfigurationError(f"no public weights of {name} are known; give a file of your own to --weights.")
        model = load_pretrained_model(name, weights=weights, device="cpu")
        source = model.source or {}
        print(
            f"{name} {weights}: SHA-256 {source.get('weights_sha256')}, pretrained {_share(model)}; works offline now"
        )


def _share(model: object) -> str:
    report = getattr(model, "load_report", None)
    return "-" if report is None else f"{report.pretrained_share:.0%}"
