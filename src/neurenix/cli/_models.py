"""`neurenix models`: list the pretrained models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..models import ARCHITECTURES
from ..transfer import list_models
from ._arguments import Options, take

if TYPE_CHECKING:
    import jsonargparse


def parser() -> Options:
    """The options of `neurenix models`."""
    options = Options("models", "List the pretrained models.", "neurenix models --domain vision")
    options.add("which", list_models)
    return options


def run(arguments: jsonargparse.Namespace) -> None:
    """One line per model: name, domain, weights."""
    for name in list_models(**take(arguments, list_models)):
        architecture = ARCHITECTURES[name]
        print(f"{name:32} {architecture.domain:7} {', '.join(architecture.weights)}")
