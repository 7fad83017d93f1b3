"""CRAFT's network in two parts, under the names of its published file: VGG16-BN, and a U-Net's decoder on it."""

from __future__ import annotations

import copy
from itertools import count
from typing import Any, Self, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...nn import TaskHead
from .._records import BuildOptions, Parts
from ._dense import checked_classes, images_of, masks_of, pixel_loss, place_mask, with_outputs

STRIDE = 16
# Widths of VGG16's convolutions up to the second of its last five blocks; 0 is a pooling.
_VGG = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512)
# Places in VGG's list of layers where the slices end. All but the last end before a ReLU, which comes between them.
_ENDS = (12, 19, 29, 39)
_MAPS = (128, 256, 512, 512, 1024)  # channels of the maps
# upconv1 to upconv4: channels of what comes from below, inside, and out
_UPWARD = ((1024, 512, 256), (256, 256, 128), (128, 128, 64), (64, 64, 32))


@final
class CraftTrunk(nn.Module):
    """The convolutions of VGG16-BN in four slices, and a fifth one that sees farther."""

    def __init__(self) -> None:
        super().__init__()
        self.basenet = nn.Module()
        layers, start = _vgg_layers(), 0
        for number, end in enumerate(_ENDS, 1):
            named = nn.Sequential()
            for place in range(start, end):
                named.add_module(str(place), layers[place])
            self.basenet.add_module(f"slice{number}", named)
            start = end + 1
        farther = nn.Conv2d(512, 1024, kernel_size=3, padding=6, dilation=6)
        pool = nn.MaxPool2d(kernel_size=3, stride=1, padding=1)
        self.basenet.slice5 = nn.Sequential(pool, farther, nn.Conv2d(1024, 1024, kernel_size=1))

    def forward(self, inputs: Any) -> tuple[Tensor, ...]:
        """Images (n, 3, h, w) -> maps at 1/2, 1/4, 1/8, 1/16 and 1/16 of the size."""
        slices = list(self.basenet.children())
        maps = [images_of(inputs)]
        for part in slices[:3]:
            maps.append(functional.relu(part(maps[-1])))
        for part in slices[3:]:
            maps.append(part(maps[-1]))
        return tuple(maps[1:])

    def feature_mask(self, inputs: Any) -> Tensor | None:
        """(n, places of the smallest map): 1 where it shows the image; None where no sizes are given."""
        return place_mask(inputs, STRIDE)


@final
class CraftHead(TaskHead):
    """Joins the maps from the smallest to the largest and scores each pixel.

    As published it has two outputs, in [0, 1] by training: how near a pixel is to the middle of a character, and to
    the middle between two characters of one word.
    """

    task = "segmentation"

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        for number, (below, inner, outputs), beside in zip(count(1), _UPWARD, reversed(_MAPS[:-1]), strict=False):
            self.add_module(f"upconv{number}", _Joining(below + beside, inner, outputs))
        layers: list[nn.Module] = []
        for entering, outputs, kernel in ((32, 32, 3), (32, 32, 3), (32, 16, 3), (16, 16, 1)):
            layers += [nn.Conv2d(entering, outputs, kernel, padding=kernel // 2), nn.ReLU(inplace=True)]
        self.conv_cls = nn.Sequential(*layers, nn.Conv2d(16, num_outputs, kernel_size=1))

    @property
    def num_outputs(self) -> int:
        """Number of score maps, or of the classes that for_classes was asked for."""
        return cast(nn.Conv2d, self.conv_cls[-1]).out_channels

    def forward(self, features: tuple[Tensor, ...], inputs: Any) -> Tensor:
        """Scores (n, outputs, height, width), enlarged from half the size of the input."""
        size = images_of(inputs).shape[-2:]
        return functional.interpolate(self.small(features), size=size, mode="bilinear", align_corners=False)

    def small(self, features: tuple[Tensor, ...]) -> Tensor:
        """The scores as they are published: (n, outputs, height / 2, width / 2)."""
        up = features[-1]
        for number, beside in enumerate(reversed(features[:-1]), 1):
            if up.shape[-2:] != beside.shape[-2:]:
                up = functional.interpolate(up, size=beside.shape[-2:], mode="bilinear", align_corners=False)
            up = self.get_submodule(f"upconv{number}")(torch.cat((up, beside), dim=1))
        return self.conv_cls(up)

    def losses(self, features: tuple[Tensor, ...], inputs: Any, targets: Any) -> dict[str, Tensor]:
        """Squared differences to score maps, or cross-entropy of the pixels for masks of classes.

        targets: reals (n, outputs, h, w), scores in [0, 1] (Baek et al., eq. 4 with confidence 1, per pixel); or whole
        numbers, see pixel_loss.
        """
        scores, wanted = self(features, inputs), masks_of(targets)
        if wanted.is_floating_point() and wanted.shape == scores.shape:
            return {"scores": (scores - wanted).square().sum(1).mean()}
        return {"pixels": pixel_loss(scores, targets)}

    def for_classes(self, num_outputs: int) -> Self:
        """The same head with a new last convolution, whose outputs are logits."""
        checked_classes(num_outputs)
        head = copy.deepcopy(self)
        head.conv_cls[-1] = with_outputs(cast(nn.Conv2d, self.conv_cls[-1]), num_outputs)
        return head


@final
class _Joining(nn.Module):
    """Two maps, one above the other -> one: a 1x1 and a 3x3 convolution with norm and ReLU."""

    def __init__(self, entering: int, inner: int, outputs: int) -> None:
        super().__init__()
        first, second = nn.Conv2d(entering, inner, 1), nn.Conv2d(inner, outputs, 3, padding=1)
        self.conv = nn.Sequential(
            *(first, nn.BatchNorm2d(inner), nn.ReLU(inplace=True)),
            *(second, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(n, entering, h, w) -> (n, outputs, h, w)."""
        return self.conv(maps)


def build_craft(options: BuildOptions) -> Parts:
    """Build the network with random weights."""
    return Parts(
        trunk=CraftTrunk(),
        head=CraftHead(options.num_classes) if options.num_classes else None,
        feature_size=_MAPS[-1],
    )


def _vgg_layers() -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for width in _VGG:
        if not width:
            layers.append(nn.MaxPool2d(kernel_size=2))
            continue
        convolution = nn.Conv2d(channels, width, kernel_size=3, padding=1)
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        channels = width
    return layers
