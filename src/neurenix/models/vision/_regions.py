"""Faster and Mask R-CNN of torchvision: the pyramid is our trunk; proposals, boxes and masks are our head."""

from __future__ import annotations

import copy
from typing import Any, Self, cast, final

from torch import Tensor, nn

from ...errors import LabelMismatchError
from ...packages import require
from .._records import BuildOptions, Parts, StateDict
from ._boxes import ThresholdedHead, freeze_norms, full_precision, image_sizes, training_mode, unpadded
from ._dense import MapsTrunk, checked_classes, images_of

STRIDE = 64  # pixels between two places of the smallest map


@final
class RegionHead(ThresholdedHead):
    """Proposes regions, and classifies and refines each: Ren et al., 2015; with masks He et al., 2017.

    forward gives for each image {"boxes": (k, 4) x1 y1 x2 y2, "scores": (k,), "labels": (k,)[, "masks":
    (k, height, width) in [0, 1]]} in pixels of the input, the best first.
    first_class: the network's number of class 0 of labels. 0 as published, where labels are COCO's numbers and 0 is the
        background; 1 after for_classes, so that labels of one's own begin with 0 and the background has no number.
    """

    task = "detection"

    def __init__(self, rpn: nn.Module, roi_heads: nn.Module, first_class: int = 0) -> None:
        super().__init__()
        self.rpn = rpn
        self.roi_heads: Any = roi_heads
        self.first_class = first_class

    @property
    def thresholds(self) -> Any:
        """What torchvision has them in."""
        return self.roi_heads

    @property
    def num_outputs(self) -> int:
        """Number of classes of labels."""
        return int(self.roi_heads.box_predictor.cls_score.out_features) - self.first_class

    def forward(self, features: tuple[Tensor, ...], inputs: Any) -> list[dict[str, Tensor]]:
        """See the docstring of the class."""
        sizes = image_sizes(inputs)
        answers, _ = self._run(features, inputs, None)
        return [self._finished(answer, size) for answer, size in zip(answers, sizes, strict=True)]

    def losses(self, features: tuple[Tensor, ...], inputs: Any, targets: Any) -> dict[str, Tensor]:
        """Torchvision's four losses, of proposals and of boxes, and a fifth one of masks. targets: see unpadded."""
        wanted = unpadded(targets, self.first_class, with_masks=self._has_masks())
        if any(bool((image["labels"] == 0).any()) for image in wanted):
            raise LabelMismatchError(
                "a box has label 0, which is the background of the published classes; their numbers begin with 1. For "
                "classes of your own, which begin with 0, replace the head: num_classes=…."
            )
        return self._run(features, inputs, wanted)[1]

    def for_classes(self, num_outputs: int) -> Self:
        """The same head with new last layers for boxes and masks, for classes that begin with 0."""
        from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
        from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor

        rows = checked_classes(num_outputs) + 1
        head = copy.deepcopy(self)
        head.first_class = 1
        regions = cast(Any, head.roi_heads)
        like = regions.box_predictor.cls_score
        regions.box_predictor = FastRCNNPredictor(like.in_features, rows).to(like.weight)
        if self._has_masks():
            up = regions.mask_predictor.conv5_mask
            regions.mask_predictor = MaskRCNNPredictor(up.in_channels, up.out_channels, rows).to(like.weight)
        return head

    def _has_masks(self) -> bool:
        return bool(cast(Any, self.roi_heads).has_mask())

    def _run(
        self, features: tuple[Tensor, ...], inputs: Any, targets: list[dict[str, Tensor]] | None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        from torchvision.models.detection.image_list import ImageList

        images = ImageList(images_of(inputs), image_sizes(inputs))
        names = [*(str(place) for place in range(len(features) - 1)), "pool"]
        like = next(self.parameters())
        with full_precision(features, like) as maps, training_mode([self.rpn, self.roi_heads], targets is not None):
            named = dict(zip(names, maps, strict=True))
            proposals, first = self.rpn(images, named, targets)
            answers, second = self.roi_heads(named, proposals, images.image_sizes, targets)
        return answers, {**second, **first}

    def _finished(self, answer: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """Labels as those of targets, and masks in their places in the image."""
        from torchvision.models.detection.roi_heads import paste_masks_in_image

        answer["labels"] = answer["labels"] - self.first_class
        if "masks" in answer:
            answer["masks"] = paste_masks_in_image(answer["masks"], answer["boxes"], size)[:, 0]
        return answer


def build_regions(options: BuildOptions, *, name: str, frozen_eps: float | None) -> Parts:
    """Build torchvision's `name` with random weights. frozen_eps: of its frozen norms; None where norms learn."""
    detection = require("torchvision.models.detection", purpose=f"the architecture {name}")
    rows = max(options.num_classes, 2)
    network = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=rows)
    if frozen_eps is not None:
        freeze_norms(network.backbone.body, frozen_eps)
    return Parts(
        trunk=MapsTrunk(network.backbone, STRIDE),
        head=RegionHead(network.rpn, network.roi_heads) if options.num_classes else None,
        feature_size=network.backbone.out_channels,
    )


def count_classes(state: StateDict) -> int | None:
    """Outputs of the box classifier in a file, the background among them; None where it has none."""
    last = state.get("head.roi_heads.box_predictor.cls_score.weight")
    return None if last is None else last.shape[0]
