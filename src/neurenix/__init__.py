"""Transfer learning on PyTorch: load a pretrained model, adapt it to your data, evaluate it, save it.

Importing neurenix loads nothing else: each part below is imported when it is first used.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from . import audio, callbacks, cuda, data, errors, metrics, models, text, training, transfer, vision

__all__ = [
    "audio",
    "callbacks",
    "cuda",
    "data",
    "errors",
    "metrics",
    "models",
    "text",
    "training",
    "transfer",
    "vision",
    "__version__",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    from .errors import nearest_names

    close = nearest_names(name, __all__) or sorted(__all__)
    raise AttributeError(f"module 'neurenix' has no attribute {name!r}; there are: {', '.join(close)}.", name=name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
