"""YOLOX's trunk: CSPDarknet and the path aggregation pyramid above it.

Ge et al., YOLOX: Exceeding YOLO Series in 2021, arXiv:2107.08430, with the parts of CSPNet (Wang et al., CVPR
Workshops 2020), of spatial pyramid pooling (He et al., TPAMI 2015) and of PANet (Liu et al., CVPR 2018). Names of
layers are those of the published files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._dense import divisible_images, place_mask

STRIDES = (8, 16, 32)  # pixels between two places of each map
POOLED = (5, 9, 13)  # sides of the windows of the pyramid pooling
_BASE = 64  # channels of the stem at width 1


@dataclass(frozen=True, kw_only=True)
class YoloxSizes:
    """depth, width: multipliers of numbers of blocks and of channels. depthwise: separable convolutions."""

    depth: float
    width: float
    depthwise: bool = False

    @property
    def maps(self) -> tuple[int, int, int]:
        """Channels of the three maps."""
        return int(256 * self.width), int(512 * self.width), int(1024 * self.width)


@final
class ConvUnit(nn.Module):
    """Convolution, batch norm, SiLU, with half the kernel as padding."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h / stride, w / stride)."""
        return functional.silu(self.bn(self.conv(x)))


@final
class SeparableUnit(nn.Module):
    """A convolution of each channel by itself, and one over the channels of each place."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.dconv = ConvUnit(inputs, inputs, kernel, stride, groups=inputs)
        self.pconv = ConvUnit(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h / stride, w / stride)."""
        return cast(Tensor, self.pconv(self.dconv(x)))


def unit(inputs: int, outputs: int, kernel: int, stride: int, depthwise: bool) -> nn.Module:
    """A convolution, whole or separable, with norm and activation."""
    return (SeparableUnit if depthwise else ConvUnit)(inputs, outputs, kernel, stride)


@final
class Focus(nn.Module):
    """The stem: each square of four pixels becomes one place with four times the channels, then a convolution."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = ConvUnit(12, outputs, 3)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) -> (n, outputs, h / 2, w / 2). Pixels go down the first column, then down the second."""
        squares = [images[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return cast(Tensor, self.conv(torch.cat(squares, dim=1)))


@final
class Bottleneck(nn.Module):
    """Two convolutions, and what came is added where `residual`."""

    def __init__(self, channels: int, residual: bool, depthwise: bool) -> None:
        super().__init__()
        self.conv1 = ConvUnit(channels, channels, 1)
        self.conv2 = unit(channels, channels, 3, 1, depthwise)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> the same shape."""
        y = cast(Tensor, self.conv2(self.conv1(x)))
        return x + y if self.residual else y


@final
class CspLayer(nn.Module):
    """Cross stage partial layer: half of the channels go through the blocks, half go past them."""

    def __init__(self, inputs: int, outputs: int, blocks: int, residual: bool, depthwise: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1 = ConvUnit(inputs, half, 1)
        self.conv2 = ConvUnit(inputs, half, 1)
        self.conv3 = ConvUnit(2 * half, outputs, 1)
        self.m = nn.Sequential(*(Bottleneck(half, residual, depthwise) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h, w)."""
        return cast(Tensor, self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], dim=1)))


@final
class PooledPyramid(nn.Module):
    """Spatial pyramid pooling: maxima over windows of three sizes beside the map itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = ConvUnit(channels, half, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(side, stride=1, padding=side // 2) for side in POOLED)
        self.conv2 = ConvUnit(half * (1 + len(POOLED)), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> the same shape."""
        x = self.conv1(x)
        return cast(Tensor, self.conv2(torch.cat([x, *(pool(x) for pool in self.m)], dim=1)))


@final
class CspDarknet(nn.Module):
    """The backbone: a stem and four stages, of which each halves height and width."""

    def __init__(self, sizes: YoloxSizes) -> None:
        super().__init__()
        base, blocks, depthwise = int(_BASE * sizes.width), max(round(3 * sizes.depth), 1), sizes.depthwise
        self.stem = Focus(base)

        def stage(factor: int, blocks: int, *between: nn.Module, residual: bool = True) -> nn.Sequential:
            outputs = base * factor
            down = unit(outputs // 2, outputs, 3, 2, depthwise)
            return nn.Sequential(down, *between, CspLayer(outputs, outputs, blocks, residual, depthwise))

        self.dark2 = stage(2, blocks)
        self.dark3 = stage(4, 3 * blocks)
        self.dark4 = stage(8, 3 * blocks)
        self.dark5 = stage(16, blocks, PooledPyramid(16 * base), residual=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, 3, h, w) -> maps at strides 8, 16 and 32."""
        third = self.dark3(self.dark2(self.stem(images)))
        fourth = self.dark4(third)
        return third, fourth, self.dark5(fourth)


@final
class PathPyramid(nn.Module):
    """The pyramid: what the coarse maps know goes down to the fine ones, and up again."""

    def __init__(self, sizes: YoloxSizes) -> None:
        super().__init__()
        fine, middle, coarse = sizes.maps
        blocks, depthwise = round(3 * sizes.depth), sizes.depthwise
        self.backbone = CspDarknet(sizes)
        self.lateral_conv0 = ConvUnit(coarse, middle, 1)
        self.C3_p4 = CspLayer(2 * middle, middle, blocks, False, depthwise)
        self.reduce_conv1 = ConvUnit(middle, fine, 1)
        self.C3_p3 = CspLayer(2 * fine, fine, blocks, False, depthwise)
        self.bu_conv2 = unit(fine, fine, 3, 2, depthwise)
        self.C3_n3 = CspLayer(2 * fine, middle, blocks, False, depthwise)
        self.bu_conv1 = unit(middle, middle, 3, 2, depthwise)
        self.C3_n4 = CspLayer(2 * middle, coarse, blocks, False, depthwise)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, 3, h, w) -> maps at strides 8, 16 and 32."""
        third, fourth, fifth = self.backbone(images)
        lateral = self.lateral_conv0(fifth)
        reduced = self.reduce_conv1(self.C3_p4(torch.cat([_doubled(lateral), fourth], dim=1)))
        fine = self.C3_p3(torch.cat([_doubled(reduced), third], dim=1))
        middle = self.C3_n3(torch.cat([self.bu_conv2(fine), reduced], dim=1))
        coarse = self.C3_n4(torch.cat([self.bu_conv1(middle), lateral], dim=1))
        return fine, middle, coarse


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")


@final
class YoloxTrunk(nn.Module):
    """Backbone and pyramid under the file's name for both, `backbone`."""

    def __init__(self, sizes: YoloxSizes) -> None:
        super().__init__()
        self.backbone = PathPyramid(sizes)

    def forward(self, inputs: Any) -> tuple[Tensor, ...]:
        """Images (n, 3, h, w), or a mapping with "images" -> maps (n, c, h / s, w / s) for s = 8, 16, 32."""
        return cast("tuple[Tensor, ...]", self.backbone(divisible_images(inputs, STRIDES[-1])))

    def feature_mask(self, inputs: Any) -> Tensor | None:
        """(n, places of the smallest map): 1 where it shows the image; None where no sizes are given."""
        return place_mask(inputs, STRIDES[-1])
