"""Several strides out of one: what a plain transformer lacks for objects of many sizes."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor, nn

from ...packages import require
from ._pyramid import octave


@final
class SimplePyramid(nn.Module):
    """Maps of a quarter, half, once and twice the stride, from one map by deconvolutions and pooling.

    Li et al., Exploring Plain Vision Transformer Backbones for Object Detection, ECCV 2022, section 3.
    finest: pixels; a map of a finer stride than about this is left out.
    channels, strides: of what it makes, the finest first.
    """

    def __init__(self, channels: int, stride: int, finest: int) -> None:
        super().__init__()
        doublings = [times for times in (2, 1) if octave(stride / 2**times) >= octave(finest)]
        self.finer = nn.ModuleList(_enlarging(channels, times) for times in doublings)
        self.coarser = nn.MaxPool2d(2, ceil_mode=True)
        self.channels = (*(channels // 2**times for times in doublings), channels, channels)
        self.strides = (*(stride / 2**times for times in doublings), float(stride), 2.0 * stride)

    def forward(self, features: Tensor) -> list[Tensor]:
        """(n, channels, h, w) -> (n, channels / f, f h, f w) for f = 4, 2, 1, and (n, channels, h / 2, w / 2)."""
        return [*(layer(features) for layer in self.finer), features, self.coarser(features)]


def _enlarging(channels: int, times: int) -> nn.Module:
    """Deconvolutions of which each doubles height and width and halves the channels."""
    norms: Any = require("torchvision.models.convnext", purpose="a pyramid from one map")
    widths = [channels // 2**done for done in range(times + 1)]
    layers: list[nn.Module] = [nn.ConvTranspose2d(widths[0], widths[1], 2, stride=2)]
    for before, after in zip(widths[1:], widths[2:], strict=False):
        layers += [norms.LayerNorm2d(before), nn.GELU(), nn.ConvTranspose2d(before, after, 2, stride=2)]
    return nn.Sequential(*layers)
