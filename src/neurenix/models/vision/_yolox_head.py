"""YOLOX's decoupled head: boxes, objectness and classes from each place of three maps."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Self, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...nn import TaskHead
from ._boxes import full_precision, unpadded
from ._csp_network import STRIDES, ConvUnit, YoloxSizes, unit
from ._dense import checked_classes, with_outputs
from ._simota import Assignment, assign, corners, decode, iou_loss, place_grid

PRIOR = 0.01  # chance of an object and of each class that new branches begin with (Lin et al., Focal Loss, sec. 4.1)
BOX_SHARE = 5.0  # weight of the IoU loss in the published training


@final
class YoloxHead(TaskHead):
    """Answers {"boxes": (k, 4) x1 y1 x2 y2 in pixels of the input, "scores": (k,), "labels": (k,)} for each image.

    score_threshold: least product of the chances of an object and of its class. overlap_threshold: IoU above which of
    two boxes of a class only the better stays. Both are those of the published evaluation.
    with_l1: whether an L1 loss of the boxes joins, as in the last epochs of the published training.
    """

    task = "detection"
    options = ("score_threshold", "overlap_threshold", "with_l1")

    def __init__(self, sizes: YoloxSizes, num_classes: int) -> None:
        super().__init__()
        self.score_threshold, self.overlap_threshold, self.with_l1 = 0.01, 0.65, False
        width = int(256 * sizes.width)

        def pair() -> nn.Sequential:
            return nn.Sequential(*(unit(width, width, 3, 1, sizes.depthwise) for _ in range(2)))

        self.cls_convs = nn.ModuleList(pair() for _ in STRIDES)
        self.reg_convs = nn.ModuleList(pair() for _ in STRIDES)
        self.cls_preds = nn.ModuleList(_with_prior(nn.Conv2d(width, num_classes, 1)) for _ in STRIDES)
        self.reg_preds = nn.ModuleList(nn.Conv2d(width, 4, 1) for _ in STRIDES)
        self.obj_preds = nn.ModuleList(_with_prior(nn.Conv2d(width, 1, 1)) for _ in STRIDES)
        self.stems = nn.ModuleList(ConvUnit(channels, width, 1) for channels in sizes.maps)

    @property
    def num_outputs(self) -> int:
        """Number of classes."""
        return int(cast(nn.Conv2d, self.cls_preds[0]).out_channels)

    def forward(self, features: tuple[Tensor, ...], inputs: Any) -> list[dict[str, Tensor]]:
        """What was found in each image, the best first."""
        return [self._found(of_image) for of_image in self.raw(features)]

    def raw(self, features: tuple[Tensor, ...]) -> Tensor:
        """(n, places, 5 + classes): cx, cy, w, h in pixels, chance of an object, chance of each class given one.

        Places go by maps from the finest, and by rows in each: 8400 for images of 640 x 640.
        """
        with full_precision(features, next(self.parameters())) as maps:
            logits = self._logits(maps)
            boxes = decode(logits[..., :4], *_places(maps))
            return torch.cat([boxes, logits[..., 4:].sigmoid()], dim=2)

    def losses(self, features: tuple[Tensor, ...], inputs: Any, targets: Any) -> dict[str, Tensor]:
        """Shares "box" (IoU), "objectness", "classes" and, where asked for, "l1", each per assigned place.

        targets: {"boxes": (n, k, 4) x1 y1 x2 y2 in pixels of the input, "labels": (n, k) padded by -1}.
        Raises LabelMismatchError for targets without them and boxes without an area.
        """
        wanted = unpadded(targets, 0, with_masks=False)
        with full_precision(features, next(self.parameters())) as maps:
            logits = self._logits(maps)
            return self._shares(logits, *_places(maps), wanted)

    def for_classes(self, num_outputs: int) -> Self:
        """The same head with new last layers of the class branches; boxes and objectness are kept."""
        checked_classes(num_outputs)
        head = copy.deepcopy(self)
        old = cast("list[nn.Conv2d]", list(head.cls_preds))
        head.cls_preds = nn.ModuleList(_with_prior(with_outputs(layer, num_outputs)) for layer in old)
        return head

    def _logits(self, maps: Sequence[Tensor]) -> Tensor:
        """(n, places, 5 + classes) before decoding and sigmoids."""
        found = []
        for level, features in enumerate(maps):
            stem = self.stems[level](features)
            box = self.reg_convs[level](stem)
            classes = self.cls_preds[level](self.cls_convs[level](stem))
            branches = [self.reg_preds[level](box), self.obj_preds[level](box), classes]
            found.append(torch.cat(branches, dim=1).flatten(2))
        return torch.cat(found, dim=2).transpose(1, 2)

    def _found(self, raw: Tensor) -> dict[str, Tensor]:
        from torchvision.ops import batched_nms

        chances, labels = raw[:, 5:].max(1)
        scores = raw[:, 4] * chances
        passed = scores >= self.score_threshold
        boxes, scores, labels = corners(raw[passed, :4]), scores[passed], labels[passed]
        kept = batched_nms(boxes, scores, labels, self.overlap_threshold)
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}

    def _shares(
        self, logits: Tensor, grid: Tensor, strides: Tensor, targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        boxes = corners(decode(logits[..., :4], grid, strides))
        points = (grid + 0.5) * strides[:, None]
        found = [
            assign(
                boxes[row], logits[row, :, 5:], logits[row, :, 4], points, strides, target["boxes"], target["labels"]
            )
            for row, target in enumerate(targets)
        ]
        rows = torch.cat([torch.full_like(of_image.places, row) for row, of_image in enumerate(found)])
        places = torch.cat([of_image.places for of_image in found])
        wanted = torch.cat([target["boxes"][of_image.objects] for target, of_image in zip(targets, found, strict=True)])
        present = torch.zeros_like(logits[..., 4])
        present[rows, places] = 1
        count = max(1, len(places))
        shares = {
            "box": BOX_SHARE * iou_loss(boxes[rows, places], wanted).sum(),
            "objectness": _cross_entropy(logits[..., 4], present),
            "classes": _cross_entropy(logits[rows, places, 5:], self._class_targets(found, targets, logits)),
        }
        if self.with_l1:
            shares["l1"] = l1_loss(logits[rows, places, :4], wanted, grid[places], strides[places])
        return {name: share / count for name, share in shares.items()}

    def _class_targets(self, found: list[Assignment], targets: list[dict[str, Tensor]], like: Tensor) -> Tensor:
        """(assigned places, classes): the IoU in the column of the object's class, so that scores tell what fits."""
        labels = torch.cat([target["labels"][one.objects] for target, one in zip(targets, found, strict=True)])
        overlaps = torch.cat([one.overlaps for one in found])
        return functional.one_hot(labels, self.num_outputs).to(like) * overlaps[:, None]


def l1_loss(raw: Tensor, boxes: Tensor, grid: Tensor, strides: Tensor) -> Tensor:
    """Sum of |t - t*| over assigned places: (). t* is what `decode` would make the box of.

    raw: (k, 4)   boxes: (k, 4) x1, y1, x2, y2   grid: (k, 2)   strides: (k,)
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / strides[:, None] - grid
    sizes = ((boxes[:, 2:] - boxes[:, :2]) / strides[:, None] + 1e-8).log()
    return (raw - torch.cat([centres, sizes], dim=1)).abs().sum()


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")


def _places(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    sizes = [(features.shape[2], features.shape[3]) for features in maps]
    return place_grid(sizes, STRIDES, maps[0])


def _with_prior(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with biases that make it begin with the chance PRIOR everywhere."""
    nn.init.constant_(cast(Tensor, layer.bias), -math.log((1 - PRIOR) / PRIOR))
    return layer
