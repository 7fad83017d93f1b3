"""The maps that a trunk computes on its way, as they were measured, and what its layers give as maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from ...errors import InputMismatchError

Layout = Literal["maps", "channels_last", "tokens"]


@final
@dataclass(frozen=True, kw_only=True)
class Level:
    """A map of features: which layer gives it, in what form, and how fine it is.

    layer: name below the trunk; "" is the trunk itself.
    stride: pixels between two of its places.
    layout: "maps" (n, channels, h, w), "channels_last" (n, h, w, channels), or "tokens" (n, tokens, channels), whose
        last h · w are the places, row by row.
    """

    layer: str
    channels: int
    stride: int
    layout: Layout


@final
@dataclass(frozen=True, kw_only=True)
class Pyramid:
    """Maps of a trunk, the finest first, at most one for each doubling of the stride.

    last: the one that is computed last, which need not be the coarsest.
    """

    levels: tuple[Level, ...]
    last: Level


def octave(stride: float) -> int:
    """How often the stride was doubled, from one pixel on: 3 for 8 pixels, and for 6 and 7."""
    return round(math.log2(stride))


def as_map(output: Tensor, level: Level, size: tuple[int, int]) -> Tensor:
    """What a layer gave as (n, channels, h, w). size: (height, width) of the images, which tokens are places of.

    Raises InputMismatchError for fewer tokens than the image has places.
    """
    if level.layout == "maps":
        return output
    if level.layout == "channels_last":
        return output.permute(0, 3, 1, 2)
    height, width = (round(side / level.stride) for side in size)
    if output.shape[1] < height * width:
        raise InputMismatchError(
            f"layer {level.layer!r} gave {output.shape[1]} tokens for images of {size[0]} x {size[1]} pixels, which "
            f"have {height} x {width} places of {level.stride} pixels; give images of the size that the model reads."
        )
    return output[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))
