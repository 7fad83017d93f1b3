"""Masks: the class of each pixel, read from files and arrays."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.mask_folders import IGNORED as IGNORED
from ..data.mask_folders import mask_numbers, read_mask
from ..errors import InputMismatchError


def as_mask(raw: Any) -> Tensor:
    """Class numbers (height, width) int64 of a mask of any accepted kind.

    raw: a path, a PIL image of one channel or with a palette (whose numbers are the classes), or an array or tensor of
    whole numbers (height, width), with or without an axis of length one.
    Raises InputMismatchError for anything else, UnreadableSampleError for a file that cannot be read.
    """
    if isinstance(raw, (str, os.PathLike)):
        return read_mask(raw)
    if type(raw).__module__.startswith("PIL."):
        return mask_numbers(raw, "an image")
    numbers = raw if isinstance(raw, Tensor) else torch.from_numpy(np.array(raw))
    if numbers.ndim == 3 and 1 in (numbers.shape[0], numbers.shape[2]):
        numbers = numbers.squeeze(0) if numbers.shape[0] == 1 else numbers.squeeze(2)
    if numbers.ndim != 2 or numbers.is_floating_point() or numbers.is_complex():
        raise InputMismatchError(
            f"a mask of type {numbers.dtype} and shape {tuple(numbers.shape)} came; it has to hold one whole number, "
            f"the class, for each pixel: (height, width), with {IGNORED} where none is known."
        )
    return numbers.long()
