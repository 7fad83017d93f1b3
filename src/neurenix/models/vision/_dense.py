"""What families share whose answers lie in the image: per pixel or as boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigurationError, InputMismatchError, LabelMismatchError
from ...vision.masks import IGNORED


def images_of(inputs: Any) -> Tensor:
    """The images (n, channels, height, width) in what a trunk reads: a tensor, or a mapping with "images"."""
    images = inputs.get("images") if isinstance(inputs, Mapping) else inputs
    if not isinstance(images, Tensor) or images.ndim != 4:
        got = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(inputs).__name__
        raise InputMismatchError(
            f"this model reads images (n, channels, height, width), alone or as a mapping's 'images'; it got {got}. "
            "model.preprocess makes them of raw images."
        )
    return images


def divisible_images(inputs: Any, divisor: int) -> Tensor:
    """The same, for a network whose maps only meet again where `divisor` divides height and width."""
    images = images_of(inputs)
    height, width = images.shape[-2:]
    if height % divisor or width % divisor:
        raise InputMismatchError(
            f"images of {height} x {width} pixels came; this network halves them several times, so both sides have "
            f"to be multiples of {divisor}: {height + -height % divisor} x {width + -width % divisor}. "
            "model.preprocess fills raw images up to that."
        )
    return images


def place_mask(inputs: Any, stride: int) -> Tensor | None:
    """(n, places): 1 where a place of a map of that stride shows the image and not what it was filled up with.

    None where no "image_sizes" (n, 2) tell where images end.
    """
    sizes = inputs.get("image_sizes") if isinstance(inputs, Mapping) else None
    if sizes is None:
        return None
    height, width = images_of(inputs).shape[-2:]
    down, right = (torch.arange(0, side, stride, device=sizes.device) for side in (height, width))
    inside = (down < sizes[:, :1])[:, :, None] & (right < sizes[:, 1:])[:, None, :]
    return inside.flatten(1).long()


@final
class MapsTrunk(nn.Module):
    """A library's network that gives several maps, under the library's name for it: `backbone`.

    backbone: images -> mapping of maps, from the largest to the smallest.
    stride: pixels between two places of the smallest map.
    """

    def __init__(self, backbone: nn.Module, stride: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.stride = stride

    def forward(self, inputs: Any) -> tuple[Tensor, ...]:
        """Images (n, 3, h, w), or a mapping with "images" -> maps (n, c, h / s, w / s), the smallest last."""
        return tuple(cast(Any, self.backbone)(images_of(inputs)).values())

    def feature_mask(self, inputs: Any) -> Tensor | None:
        """(n, places of the smallest map): 1 where it shows the image; None where no sizes are given."""
        return place_mask(inputs, self.stride)


def pixel_loss(logits: Tensor, targets: Any) -> Tensor:
    """Mean cross-entropy over all pixels whose class is known: (), in nats.

    logits: (n, classes, h, w); one class is a logit of yes against no.
    targets: (n, h, w) class numbers, or a mapping with them as "masks"; 255 is left out.
    Raises LabelMismatchError for masks of another size or with numbers that are no classes.
    """
    masks = checked_masks(logits, targets)
    known = masks != IGNORED
    if logits.shape[1] > 1:
        total = functional.cross_entropy(logits, masks.long(), ignore_index=IGNORED, reduction="sum")
    else:
        chosen = logits[:, 0][known]
        total = functional.binary_cross_entropy_with_logits(chosen, masks[known].to(chosen.dtype), reduction="sum")
    return total / known.sum().clamp(min=1)


def checked_masks(logits: Tensor, targets: Any) -> Tensor:
    """The masks (n, h, w) in `targets`, which fit answers (n, classes, h, w). Raises LabelMismatchError else."""
    masks = masks_of(targets)
    count = max(2, logits.shape[1])
    if masks.shape != (logits.shape[0], *logits.shape[2:]):
        raise LabelMismatchError(
            f"masks of shape {tuple(masks.shape)} came for answers of shape {tuple(logits.shape)}; they have to be "
            "(n, height, width), of the size of the images."
        )
    wrong = (masks != IGNORED) & ((masks < 0) | (masks >= count))
    if bool(wrong.any()):
        raise LabelMismatchError(
            f"masks hold the class numbers {masks[wrong].unique().tolist()[:5]}; this head has the classes 0 to "
            f"{count - 1}, and {IGNORED} is for pixels without a class."
        )
    return masks


def masks_of(targets: Any) -> Tensor:
    """The masks in a loader's targets: a tensor, or a mapping with "masks"."""
    masks = targets.get("masks") if isinstance(targets, Mapping) else targets
    if not isinstance(masks, Tensor):
        raise LabelMismatchError(
            f"segmentation needs masks, a tensor (n, height, width) of class numbers; it got {type(masks).__name__}."
        )
    return masks


def checked_classes(num_outputs: int, least: int = 1) -> int:
    """The number itself. Raises ConfigurationError for one that no head can have."""
    if isinstance(num_outputs, bool) or not isinstance(num_outputs, int) or num_outputs < least:
        raise ConfigurationError(f"num_outputs={num_outputs!r}; it is a number of classes, at least {least}.")
    return num_outputs


def with_outputs(layer: nn.Conv2d, num_outputs: int) -> nn.Conv2d:
    """A convolution like `layer`, newly initialised, with so many outputs, on its device and in its dtype."""
    return nn.Conv2d(
        layer.in_channels,
        num_outputs,
        cast("tuple[int, int]", layer.kernel_size),
        cast("tuple[int, int]", layer.stride),
        cast("tuple[int, int]", layer.padding),
        bias=layer.bias is not None,
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )
