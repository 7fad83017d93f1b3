"""What detectors share: reading padded boxes, the layout of images, and torchvision's published names."""

from __future__ import annotations

import abc
import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ...errors import LabelMismatchError
from ...nn import TaskHead
from .._records import StateDict
from ._dense import images_of


class ThresholdedHead(TaskHead):
    """A head of torchvision's detectors, whose answers pass two thresholds; a user may set them."""

    options = ("score_threshold", "overlap_threshold")

    @property
    @abc.abstractmethod
    def thresholds(self) -> Any:
        """What has them, as `score_thresh` and `nms_thresh`."""

    @property
    def score_threshold(self) -> float:
        """Least chance of a class."""
        return float(self.thresholds.score_thresh)

    @score_threshold.setter
    def score_threshold(self, value: float) -> None:
        self.thresholds.score_thresh = value

    @property
    def overlap_threshold(self) -> float:
        """IoU above which of two boxes of a class only the better stays."""
        return float(self.thresholds.nms_thresh)

    @overlap_threshold.setter
    def overlap_threshold(self, value: float) -> None:
        self.thresholds.nms_thresh = value


class OneStageHead(ThresholdedHead):
    """The head of one of torchvision's detectors that classify each anchor at once.

    network: of which only the head is trained and saved; its methods and settings are used.
    """

    task: ClassVar[str] = "detection"
    needs: ClassVar[tuple[str, ...] | None] = ("images", "image_sizes")

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.head = network.head
        self._network = [network]  # in a list, so that it is not registered

    @property
    def thresholds(self) -> Any:
        """What torchvision has them in."""
        return self._network[0]

    @property
    def num_outputs(self) -> int:
        """Number of classes of labels."""
        return int(cast(Any, self.head).classification_head.num_classes)


def image_sizes(inputs: Any) -> list[tuple[int, int]]:
    """(height, width) of each image without what it was filled up with; all of it where no sizes are given."""
    images = images_of(inputs)
    if isinstance(inputs, Mapping) and "image_sizes" in inputs:
        return [(int(height), int(width)) for height, width in inputs["image_sizes"].tolist()]
    return [(images.shape[2], images.shape[3])] * images.shape[0]


def unpadded(targets: Any, first_class: int, *, with_masks: bool) -> list[dict[str, Tensor]]:
    """Padded targets as torchvision takes them: {"boxes": (k, 4), "labels": (k,)[, "masks": (k, h, w)]} of each image.

    targets: {"boxes": (n, k, 4), "labels": (n, k)[, "masks": (n, k, h, w)]}, padded by labels of -1.
    first_class: what the network calls class 0 of the targets.
    Raises LabelMismatchError for targets without what is needed, boxes without an area and labels without a class.
    """
    needed = ("boxes", "labels", "masks") if with_masks else ("boxes", "labels")
    if not isinstance(targets, Mapping) or any(name not in targets for name in needed):
        got = ", ".join(targets) if isinstance(targets, Mapping) else type(targets).__name__
        raise LabelMismatchError(
            f"this detector learns from a mapping with {', '.join(needed)}; the targets are {got}."
        )
    found = []
    for index, labels in enumerate(targets["labels"]):
        kept = labels >= 0
        image = {"boxes": targets["boxes"][index][kept].float(), "labels": labels[kept].long() + first_class}
        if with_masks:
            image["masks"] = targets["masks"][index][kept]
        _check_areas(image["boxes"], index)
        found.append(image)
    return found


def _check_areas(boxes: Tensor, index: int) -> None:
    empty = (boxes[:, 2:] <= boxes[:, :2]).any(1)
    if bool(empty.any()):
        raise LabelMismatchError(
            f"image {index} of the batch has the box {boxes[empty][0].tolist()}, which has no area; boxes are x1, y1, "
            "x2, y2 in pixels with x1 < x2 and y1 < y2."
        )


@contextlib.contextmanager
def training_mode(modules: Sequence[nn.Module], training: bool) -> Iterator[None]:
    """Let torchvision's modules compute losses, or answers, without changing the mode of the layers in them."""
    before = [module.training for module in modules]
    for module in modules:
        module.training = training
    try:
        yield
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.training = mode


@contextlib.contextmanager
def full_precision(features: Sequence[Tensor], like: Tensor) -> Iterator[list[Tensor]]:
    """The maps in the precision of the weights, without autocast: bfloat16 cannot tell 1003 pixels from 1004."""
    with torch.autocast(like.device.type, enabled=False):
        yield [feature.to(like.dtype) for feature in features]


def freeze_norms(network: nn.Module, eps: float) -> None:
    """Replace batch norms by ones that keep statistics, scale and shift, as detectors are trained with."""
    from torchvision.ops import FrozenBatchNorm2d

    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            network.set_submodule(name, FrozenBatchNorm2d(module.num_features, eps))


# Files older than torchvision 0.13 have the second form of these names.
_RENAMES = (
    (r"^(backbone\.fpn\.\w+_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    (r"^(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2"),
    (r"^backbone\.", "trunk.backbone."),
    (r"^((rpn|roi_heads)\.|head\.(classification|regression)_head\.)", r"head.\1"),
)
_OLD_MASKS = re.compile(r"(.*\.mask_head)\.mask_fcn(\d)\.(weight|bias)")
_OLD_RETINA = re.compile(r"(.*_head\.conv)\.(\d)\.(weight|bias)")


def convert(state: StateDict) -> StateDict:
    """Torchvision's names to ours: `backbone` is the trunk's, all else the head's."""
    return {_our_key(key): tensor for key, tensor in state.items()}


def _our_key(key: str) -> str:
    for pattern, name in _RENAMES:
        key = re.sub(pattern, name, key)
    if match := _OLD_MASKS.fullmatch(key):
        return f"{match[1]}.{int(match[2]) - 1}.0.{match[3]}"
    if match := _OLD_RETINA.fullmatch(key):
        return f"{match[1]}.{int(match[2]) // 2}.0.{match[3]}"
    return key
