"""Small data sets that ship inside the package, so that a first run needs no download.

This module imports nothing heavy: finding the folder of a demo must not cost the start-up time of PyTorch.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigurationError

CLIPART_SPLITS = ("train", "test")


def clipart_path(split: str) -> Path:
    """Return the folder of one split of the clip-art set, with one sub-folder for each class.

    ``split`` is ``"train"`` or ``"test"``; anything else raises ConfigurationError.
    """
    if split not in CLIPART_SPLITS:
        possible = " or ".join(repr(name) for name in CLIPART_SPLITS)
        raise ConfigurationError(f"the clip-art set has no split {split!r}; possible is {possible}")
    return Path(__file__).resolve().parent / "clipart" / split


__all__ = ["CLIPART_SPLITS", "clipart_path"]
