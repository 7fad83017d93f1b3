"""Objects as changed anchors: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017 (RetinaNet)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast, final

from torch import Tensor, nn

from ...errors import ConfigurationError
from ...packages import require
from ._backbone import Backbone
from ._detection import Answers, DetectionKind, DetectorHead, Outline, check_sizes, neck_on
from ._kind import HEADS

_BOX_LOSSES = ("l1", "smooth_l1", "giou")  # of torchvision's regression head
_SIZES = 3  # of anchors at each place, an octave cut in three (section 4)


@HEADS.register("anchors", "retinanet_head")
@final
@dataclass(frozen=True, kw_only=True)
class Anchors(DetectionKind):
    """Each place of a pyramid classifies and refines boxes of three sizes and several proportions.

    Losses, torchvision's: focal of the classes, and one of the boxes, each per anchor that has an object. An anchor has
    the object that it overlaps most, from an IoU of 0.5 on; below 0.4 it is ground.

    num_outputs: classes. channels: of the pyramid. box_loss: "l1", "smooth_l1" or "giou". anchor_scale: strides that
    the side of the smallest anchor has; the others have 2^(1/3) and 2^(2/3) of it. aspect_ratios: height by width.
    finest_stride, coarser_levels: see AnchorFree.
    """

    num_outputs: int
    channels: int = 256
    box_loss: str = "l1"
    anchor_scale: float = 4.0
    aspect_ratios: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    finest_stride: int = 8
    coarser_levels: bool = True

    def check(self) -> None:
        """Sizes of network and anchors."""
        check_sizes(self.channels, self.finest_stride)
        if self.box_loss not in _BOX_LOSSES:
            raise ConfigurationError(f"box_loss={self.box_loss!r}; possible: {', '.join(_BOX_LOSSES)}.")
        if self.anchor_scale <= 0 or not self.aspect_ratios or min(self.aspect_ratios) <= 0:
            raise ConfigurationError(
                f"anchor_scale={self.anchor_scale}, aspect_ratios={self.aspect_ratios}; all are above 0, with at least "
                "one ratio: [0.5, 1.0, 2.0]."
            )

    def build(self, backbone: Backbone) -> nn.Module:
        """The head."""
        retina: Any = require("torchvision.models.detection.retinanet", purpose="the head 'anchors'")
        reader, neck = neck_on(backbone, self.channels, self.finest_stride, coarser=self.coarser_levels)
        sizes = [
            tuple(stride * self.anchor_scale * 2 ** (third / _SIZES) for third in range(_SIZES))
            for stride in neck.strides
        ]
        head = retina.RetinaNetHead(self.channels, _SIZES * len(self.aspect_ratios), self.num_outputs)
        head.regression_head._loss_type = self.box_loss  # as torchvision's own second RetinaNet sets it
        network = retina.RetinaNet(
            Outline(self.channels),
            self.num_outputs,
            anchor_generator=retina.AnchorGenerator(sizes, [tuple(self.aspect_ratios)] * len(sizes)),
            head=head,
            score_thresh=0.05,
            nms_thresh=0.5,
        )
        return AnchorsHead(reader, neck, network)


@final
class AnchorsHead(DetectorHead):
    """See Anchors."""

    def new_classifier(self, num_outputs: int) -> nn.Module:
        """Torchvision's."""
        from torchvision.models.detection.retinanet import RetinaNetClassificationHead

        like = cast(Any, self.head).classification_head
        return RetinaNetClassificationHead(like.cls_logits.in_channels, like.num_anchors, num_outputs)

    def compute_losses(
        self, targets: list[dict[str, Tensor]], answers: Answers, anchors: list[Tensor], counts: list[int]
    ) -> dict[str, Tensor]:
        """Of "classification" and "bbox_regression"."""
        return cast("dict[str, Tensor]", self._network[0].compute_loss(targets, answers, anchors))
