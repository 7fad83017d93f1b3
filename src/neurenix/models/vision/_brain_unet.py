"""The U-Net of Buda, Saha & Mazurowski for brain MRI, in two parts, under the names of its published file.

Ronneberger, Fischer & Brox, U-Net, MICCAI 2015, with norms and padded convolutions.
"""

from __future__ import annotations

import copy
from typing import Any, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...nn import TaskHead
from ...vision.masks import IGNORED
from .._records import BuildOptions, Parts
from ._dense import checked_classes, checked_masks, divisible_images, pixel_loss, place_mask, with_outputs

LEVELS = (1, 2, 3, 4)
WIDTH = 32  # channels of the first level in the published file
STRIDE = 16


@final
class BrainUNetTrunk(nn.Module):
    """The contracting side. width: channels of the first level, doubled at each further one."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        for level in LEVELS:
            outputs = width * 2 ** (level - 1)
            self.add_module(f"encoder{level}", _convolutions(f"enc{level}", channels, outputs))
            channels = outputs
        self.bottleneck = _convolutions("bottleneck", channels, 2 * channels)

    def forward(self, inputs: Any) -> tuple[Tensor, ...]:
        """Images (n, channels, h, w), sides multiples of 16 -> five maps, each of half the size of the one before."""
        maps = [divisible_images(inputs, STRIDE)]
        for level in LEVELS:
            entering = maps[-1] if level == 1 else functional.max_pool2d(maps[-1], 2)
            maps.append(self.get_submodule(f"encoder{level}")(entering))
        return (*maps[1:], self.bottleneck(functional.max_pool2d(maps[-1], 2)))

    def feature_mask(self, inputs: Any) -> Tensor | None:
        """(n, places of the smallest map): 1 where it shows the image; None where no sizes are given."""
        return place_mask(inputs, STRIDE)


@final
class BrainUNetHead(TaskHead):
    """The expanding side, which reads every map of the contracting one, and a convolution to the classes."""

    task = "segmentation"

    def __init__(self, width: int, num_outputs: int) -> None:
        super().__init__()
        for level in reversed(LEVELS):
            outputs = width * 2 ** (level - 1)
            self.add_module(f"upconv{level}", nn.ConvTranspose2d(2 * outputs, outputs, kernel_size=2, stride=2))
            self.add_module(f"decoder{level}", _convolutions(f"dec{level}", 2 * outputs, outputs))
        self.conv = nn.Conv2d(width, num_outputs, kernel_size=1)

    @property
    def num_outputs(self) -> int:
        """Number of classes; one is what is sought against all else."""
        return self.conv.out_channels

    def forward(self, features: tuple[Tensor, ...], inputs: Any) -> Tensor:
        """Logits (n, classes, height, width); of one class their sigmoid is what the published network answers."""
        up = features[-1]
        for level in reversed(LEVELS):
            up = self.get_submodule(f"upconv{level}")(up)
            up = self.get_submodule(f"decoder{level}")(torch.cat((up, features[level - 1]), dim=1))
        return self.conv(up)

    def losses(self, features: tuple[Tensor, ...], inputs: Any, targets: Any) -> dict[str, Tensor]:
        """Of one class the Dice loss that the weights were trained with; of several cross-entropy of the pixels."""
        logits = self(features, inputs)
        if self.num_outputs > 1:
            return {"pixels": pixel_loss(logits, targets)}
        return {"dice": dice_loss(logits[:, 0].sigmoid(), checked_masks(logits, targets))}

    def for_classes(self, num_outputs: int) -> Self:
        """The same head with a new last convolution."""
        checked_classes(num_outputs)
        head = copy.deepcopy(self)
        head.conv = with_outputs(self.conv, num_outputs)
        return head


def dice_loss(probabilities: Tensor, masks: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - (2 Σpt + 1) / (Σp + Σt + 1) over all pixels of a batch: (), in [0, 1].

    Milletari, Navab & Ahmadi, V-Net, 3DV 2016, without their squares, as in the recipe of the published weights.
    probabilities, masks: (n, h, w); masks in {0, 1}, 255 is left out.
    """
    known = masks != IGNORED
    probabilities, wanted = probabilities[known], masks[known].to(probabilities.dtype)
    overlap = (probabilities * wanted).sum()
    return 1 - (2 * overlap + smooth) / (probabilities.sum() + wanted.sum() + smooth)


def build_brain_unet(options: BuildOptions) -> Parts:
    """Build the network with random weights, of the width and the channels of the file where there is one."""
    first = (options.state or {}).get("trunk.encoder1.enc1conv1.weight")
    width, channels = (WIDTH, options.channels) if first is None or first.ndim != 4 else first.shape[:2]
    return Parts(
        trunk=BrainUNetTrunk(channels, width),
        head=BrainUNetHead(width, options.num_classes) if options.num_classes else None,
        feature_size=width * STRIDE,
    )


def _convolutions(name: str, channels: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions with norm and ReLU behind each, named as in the published file."""
    block = nn.Sequential()
    for place, entering in ((1, channels), (2, outputs)):
        block.add_module(f"{name}conv{place}", nn.Conv2d(entering, outputs, kernel_size=3, padding=1, bias=False))
        block.add_module(f"{name}norm{place}", nn.BatchNorm2d(outputs))
        block.add_module(f"{name}relu{place}", nn.ReLU(inplace=True))
    return block
