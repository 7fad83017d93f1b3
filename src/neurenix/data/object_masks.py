"""Masks of objects from their outlines, drawn by the library of COCO's own scores."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch
from torch import Tensor

from ..errors import UnreadableSampleError
from ..packages import require

Outline: TypeAlias = "Sequence[Sequence[float]] | Mapping[str, Any]"  # polygons x, y, x, y, …, or COCO's run lengths
_LARGEST = sys.float_info.max
_MOST_BYTES = 1 << 31  # of all masks of one image


def object_masks(outlines: Sequence[Outline], size: tuple[int, int], scale: tuple[float, float] = (1, 1)) -> Tensor:
    """(k, height, width) uint8, 1 inside each object. size: (width, height). scale: pixels in one unit of a polygon.

    Raises UnreadableSampleError for outlines that no mask can be drawn from. What reaches out of the image is cut off.
    """
    width, height = size
    if len(outlines) * width * height > _MOST_BYTES:
        raise UnreadableSampleError(f"{len(outlines)} masks of {width}x{height} pixels need more than 2 GiB.")
    require("faster_coco_eval", purpose="drawing masks", install="neurenix[detection]")
    from faster_coco_eval.core import mask

    masks = np.zeros((len(outlines), height, width), dtype=np.uint8)
    for number, outline in enumerate(outlines):
        runs: list[Any]
        if isinstance(outline, Mapping):
            runs = [{"counts": _counts(outline, size, number), "size": [height, width]}]
        else:
            runs = [_polygon(polygon, size, scale, number) for polygon in _listed(outline, number)]
        masks[number] = mask.decode(mask.merge(mask.frPyObjects(runs, height, width)))
    return torch.from_numpy(masks)


def are_numbers(values: Any) -> TypeGuard[list[float]]:
    """Whether `values` is a list of finite numbers; JSON as Python reads it has others too, and truth values."""
    return isinstance(values, list) and all(
        type(value) in (int, float) and -_LARGEST <= value <= _LARGEST for value in values
    )


def _listed(outline: Any, number: int) -> list[Any]:
    if not isinstance(outline, list) or not outline:
        raise UnreadableSampleError(f"the outline of object {number} is {str(outline)[:60]}, no list of polygons.")
    return outline


def _polygon(polygon: Any, size: tuple[int, int], scale: tuple[float, float], number: int) -> list[float]:
    """x, y, x, y, … within the image; the library would take memory for whatever coordinates say."""
    points = np.asarray(polygon if are_numbers(polygon) else [], dtype=np.float64)
    if len(points) < 6 or len(points) % 2:
        raise UnreadableSampleError(
            f"a polygon of object {number} is {str(polygon)[:60]}; three points x, y are needed."
        )
    clipped = np.clip(points.reshape(-1, 2), 0, np.divide(size, scale)) * scale
    return [float(value) for value in clipped.flatten()]


def _counts(outline: Mapping[str, Any], size: tuple[int, int], number: int) -> list[int]:
    """Lengths of the runs of 0 and 1, column by column, that fill the image exactly; the library does not look."""
    counts, stated = outline.get("counts"), outline.get("size")
    counts = _unpacked(counts) if isinstance(counts, str) else counts
    usable = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
    if not usable or stated != [size[1], size[0]] or sum(counts or []) != size[0] * size[1]:
        raise UnreadableSampleError(
            f"the run lengths of object {number} are of size {str(stated)[:40]} and do not fill the image, which has "
            f"{size[1]} rows and {size[0]} columns."
        )
    return list(counts or [])


def _unpacked(text: str) -> list[int] | None:
    """Runs from COCO's packed form, None where it is none.

    Six bits a character, from "0" on: five of the number, lowest first, and one that says that more follow; the last
    one's highest bit is the sign. From the fourth number on the difference to the last but one is stored.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= 1 << shift if bits & 16 else 0
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return None if shift else counts
