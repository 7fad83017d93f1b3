"""From what the layers of any trunk give to maps, the finest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, final

from torch import Tensor, nn

from ...models.vision._dense import images_of
from ._pyramid import Level, Pyramid, as_map, octave
from ._simple_pyramid import SimplePyramid


@final
class MapReader(nn.Module):
    """Maps (n, channels, h, w) of a trunk, read from some of its layers.

    layers: names below the trunk, for TaskHead.layers. channels, strides: of the maps, the finest first.
    """

    def __init__(self, levels: Sequence[Level], spread_from: int | None = None) -> None:
        """spread_from: pixels; of the one level maps of several strides are made, from this on."""
        super().__init__()
        self.levels = tuple(levels)
        self.spread = None if spread_from is None else SimplePyramid(levels[0].channels, levels[0].stride, spread_from)
        self.layers = tuple(level.layer for level in levels)
        self.channels = self.spread.channels if self.spread else tuple(level.channels for level in levels)
        self.strides = self.spread.strides if self.spread else tuple(float(level.stride) for level in levels)

    @classmethod
    def of_last(cls, pyramid: Pyramid) -> Self:
        """The map that is computed last."""
        return cls([pyramid.last])

    @classmethod
    def of_all(cls, pyramid: Pyramid, finest: int) -> Self:
        """Maps of all strides from about `finest` pixels on, or the coarsest; of a trunk with a single one several."""
        if len(pyramid.levels) == 1:
            return cls([pyramid.last], finest)
        fitting = [level for level in pyramid.levels if octave(level.stride) >= octave(finest)]
        return cls(fitting or [pyramid.levels[-1]])

    def forward(self, outputs: Sequence[Tensor], inputs: Any) -> list[Tensor]:
        """outputs: of the layers. inputs: images (n, c, height, width), or a mapping with "images"."""
        height, width = images_of(inputs).shape[-2:]
        maps = [as_map(part, level, (height, width)) for part, level in zip(outputs, self.levels, strict=True)]
        return maps if self.spread is None else self.spread(maps[0])
