"""Masks: the class of each pixel, read from files and arrays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..data.image_files import FORMATS, MAX_PIXELS
from ..data.manifest import check_regular
from ..errors import InputMismatchError, UnreadableSampleError

if TYPE_CHECKING:
    from PIL.Image import Image

IGNORED = 255  # the class number of pixels that losses and metrics leave out
_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")


def as_mask(raw: Any) -> Tensor:
    """Class numbers (height, width) int64 of a mask of any accepted kind.

    raw: a path, a PIL image of one channel or with a palette (whose numbers are the classes), or an array or tensor of
    whole numbers (height, width), with or without an axis of length one.
    Raises InputMismatchError for anything else, UnreadableSampleError for a file that cannot be read.
    """
    if isinstance(raw, (str, os.PathLike)):
        return _read(raw)
    if type(raw).__module__.startswith("PIL."):
        return _numbers(raw, "an image")
    numbers = raw if isinstance(raw, Tensor) else torch.from_numpy(np.array(raw))
    if numbers.ndim == 3 and 1 in (numbers.shape[0], numbers.shape[2]):
        numbers = numbers.squeeze(0) if numbers.shape[0] == 1 else numbers.squeeze(2)
    if numbers.ndim != 2 or numbers.is_floating_point() or numbers.is_complex():
        raise InputMismatchError(
            f"a mask of type {numbers.dtype} and shape {tuple(numbers.shape)} came; it has to hold one whole number, "
            f"the class, for each pixel: (height, width), with {IGNORED} where none is known."
        )
    return numbers.long()


def _read(path: str | os.PathLike[str]) -> Tensor:
    from PIL import Image

    try:
        check_regular(path)
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableSampleError(f"{path} has more than {MAX_PIXELS} pixels, which are not decoded.")
            return _numbers(image, str(path))
    except (InputMismatchError, UnreadableSampleError):
        raise
    except Exception as error:  # a decoder may raise anything at damaged bytes, and no code of the user's runs here
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error) or type(error).__name__
        raise UnreadableSampleError(f"{path} cannot be read as a mask: {reason}") from error


def _numbers(image: Image, name: str) -> Tensor:
    if image.mode not in _MODES:
        raise InputMismatchError(
            f"{name} of mode {image.mode} was given as a mask; colours are no class numbers. Save masks with one "
            "channel or a palette, one number a class."
        )
    return torch.from_numpy(np.array(image).astype(np.int64))
