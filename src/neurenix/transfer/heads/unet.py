"""A decoder over all strides: Ronneberger et al., U-Net, MICCAI 2015."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigurationError
from ._backbone import Backbone
from ._kind import HEADS
from ._map_reader import MapReader
from ._segmentation import SegmentationHead, SegmentationKind

_FINEST = 2  # pixels, of the maps that are made of a plain transformer's


@HEADS.register("unet")
@final
@dataclass(frozen=True, kw_only=True)
class UNet(SegmentationKind):
    """The coarsest map, enlarged step by step and joined with each finer one, and a classifier on the finest.

    num_outputs: classes. widths: channels behind each step, from the coarsest; the last one holds for all that follow.
    Of a plain transformer's single map the finer ones are made first (see SimplePyramid).
    """

    num_outputs: int
    widths: list[int] = field(default_factory=lambda: [256, 128, 64, 32, 16])

    def check(self) -> None:
        """Widths are numbers of channels."""
        super().check()
        if not self.widths or min(self.widths) < 1:
            raise ConfigurationError(f"widths={self.widths}; give numbers of channels, from 1: [256, 128, 64, 32, 16].")

    def build(self, backbone: Backbone) -> nn.Module:
        """The head."""
        reader = MapReader.of_all(backbone.pyramid(), _FINEST)
        steps = len(reader.channels) - 1
        widths = [self.widths[min(step, len(self.widths) - 1)] for step in range(steps)]
        return SegmentationHead(
            reader, UNetDecoder(reader.channels, widths), nn.Conv2d(widths[-1], self.num_outputs, 1)
        )


@final
class UNetDecoder(nn.Module):
    """channels: of the maps, the finest first. widths: of what each step gives, the coarsest first."""

    def __init__(self, channels: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        coarsest, *skips = reversed(channels)
        self.steps = nn.ModuleList(
            _two_convolutions(below + skip, width)
            for (below, width), skip in zip(pairwise([coarsest, *widths]), skips, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """[(n, c, h, w), the finest first] -> (n, width, h, w) of the finest, whatever their sizes."""
        joined, *skips = reversed(maps)
        for step, skip in zip(self.steps, skips, strict=True):
            enlarged = functional.interpolate(joined, size=skip.shape[-2:], mode="nearest")
            joined = step(torch.cat([enlarged, skip], 1))
        return joined


def _two_convolutions(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)
