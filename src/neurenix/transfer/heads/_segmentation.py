"""What kinds of heads share that give each pixel a class."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigurationError, LabelMismatchError
from ...metrics import TaskKind
from ...models.vision._dense import checked_classes, checked_masks, images_of, masks_of, pixel_loss, with_outputs
from ...nn import TaskHead
from ...vision.masks import IGNORED
from ._expected_images import with_masks
from ._kind import OWN, HeadKind
from ._map_reader import MapReader


@dataclass(frozen=True, kw_only=True)
class SegmentationKind(HeadKind):
    """A kind whose models answer with logits (n, classes, height, width), at the size of the images.

    Masks hold class numbers 0 to num_outputs - 1, the background among them where there is one; 255 is a pixel without
    a class, which loss and metrics leave out. With num_outputs=1 the one logit is that of 1 against 0.

    background: the number of the class that is none of the things looked for; None where there is none, or nobody says.
    """

    background: int | None = None

    task: ClassVar[TaskKind | None] = "segmentation"
    loss: ClassVar[str] = OWN

    def check(self) -> None:
        """The background is one of the classes."""
        classes = max(2, int(getattr(self, "num_outputs", 1)))
        if self.background is not None and not 0 <= self.background < classes:
            raise ConfigurationError(
                f"background={self.background}; it is a class number, 0 to {classes - 1}, or None."
            )

    def preprocessing(self, preprocess: Any) -> Any:
        """Images and masks go the same way, and answers come back to the size that an image had."""
        return with_masks(preprocess)


@final
class SegmentationHead(TaskHead):
    """Logits (n, classes, height, width) of each pixel's class, bilinear from those of the decoder's map.

    decoder: list of maps that the reader gives -> one map. classifier: 1x1 on it.
    """

    task: ClassVar[str] = "segmentation"
    needs: ClassVar[tuple[str, ...] | None] = ("images",)
    ignore_index: ClassVar[int | None] = IGNORED

    def __init__(self, reader: MapReader, decoder: nn.Module, classifier: nn.Conv2d) -> None:
        super().__init__()
        self.layers = reader.layers
        self.reader, self.decoder, self.classifier = reader, decoder, classifier

    @property
    def num_outputs(self) -> int:
        """Number of classes, the background among them."""
        return self.classifier.out_channels

    def forward(self, features: tuple[Tensor, ...], inputs: Any) -> Tensor:
        """See the docstring of the class."""
        logits = self.classifier(self.decoder(self.reader(features, inputs)))
        size = images_of(inputs).shape[-2:]
        return functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)

    def losses(self, features: tuple[Tensor, ...], inputs: Any, targets: Any) -> dict[str, Tensor]:
        """Mean cross-entropy of the pixels. targets: see pixel_loss."""
        return {"pixels": pixel_loss(self(features, inputs), targets)}

    def check_batch(self, inputs: Any, targets: Any) -> None:
        """Masks (n, height, width) of the images' size with numbers of classes."""
        images, masks = images_of(inputs), masks_of(targets)
        if masks.ndim != 3 or masks.is_floating_point():
            raise LabelMismatchError(
                f"masks of type {masks.dtype} and shape {tuple(masks.shape)} came; give one whole number, the class, "
                "for each pixel: (n, height, width)."
            )
        checked_masks(masks.new_zeros(1).expand(len(images), self.num_outputs, *images.shape[2:]), masks)

    def for_classes(self, num_outputs: int) -> Self:
        """The same head with a new last layer."""
        checked_classes(num_outputs)
        head = copy.deepcopy(self)
        head.classifier = with_outputs(self.classifier, num_outputs)
        return head


@final
class OnOneMap(nn.Module):
    """A decoder that is a network on the only map."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """[(n, c, h, w)] -> (n, channels, h, w)"""
        return cast(Tensor, self.network(maps[0]))


@final
class BatchNormOfFew(nn.BatchNorm2d):
    """Batch norm that takes the running statistics where a batch has one value per channel, which has no variance."""

    def forward(self, values: Tensor) -> Tensor:
        """(n, c, h, w) -> the same shape."""
        if self.training and values.numel() == values.shape[1]:
            mean, variance = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
            return torch.batch_norm(
                values, self.weight, self.bias, mean, variance, False, 0.0, self.eps, torch.backends.cudnn.enabled
            )
        return super().forward(values)
