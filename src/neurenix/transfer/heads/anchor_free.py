"""Objects from the places inside them: Tian et al., FCOS: Fully Convolutional One-Stage Object Detection, ICCV 2019."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast, final

from torch import Tensor, nn

from ...errors import ConfigurationError
from ...packages import require
from ._backbone import Backbone
from ._detection import Answers, DetectionKind, DetectorHead, Outline, check_sizes, neck_on
from ._kind import HEADS

_GROUPS = 32  # of the norms in torchvision's head


@HEADS.register("anchor_free", "fcos")
@final
@dataclass(frozen=True, kw_only=True)
class AnchorFree(DetectionKind):
    """Each place of a pyramid says classes, distances to the sides of its object, and how central it is in it.

    Losses, torchvision's: focal of the classes, generalised IoU of the boxes, cross-entropy of the centredness, each
    per place that has an object. A place has the smallest object that it is close enough to the middle of, and whose
    farthest side is between 4 and 8 strides away (section 3.2; any distance at the ends of the pyramid).

    num_outputs: classes. channels: of the pyramid, a multiple of 32, from 64. depth: convolutions before the answers.
    finest_stride: pixels between places of the finest map that is used. coarser_levels: adds P6 and P7, for objects
    that are larger than eight strides of the backbone's coarsest map.
    """

    num_outputs: int
    channels: int = 256
    depth: int = 4
    finest_stride: int = 8
    coarser_levels: bool = True

    def check(self) -> None:
        """Sizes of the network."""
        check_sizes(self.channels, self.finest_stride)
        if self.channels % _GROUPS or self.channels == _GROUPS:  # a group of one value has no variance
            raise ConfigurationError(f"channels={self.channels}; give a multiple of {_GROUPS}, from {2 * _GROUPS}.")
        if self.depth < 1:
            raise ConfigurationError(f"depth={self.depth}; it is a number of convolutions, from 1.")

    def build(self, backbone: Backbone) -> nn.Module:
        """The head."""
        fcos: Any = require("torchvision.models.detection.fcos", purpose="the head 'anchor_free'")
        reader, neck = neck_on(backbone, self.channels, self.finest_stride, coarser=self.coarser_levels)
        network = fcos.FCOS(
            Outline(self.channels),
            self.num_outputs,
            anchor_generator=fcos.AnchorGenerator([(stride,) for stride in neck.strides], [(1.0,)] * len(neck.strides)),
            head=fcos.FCOSHead(self.channels, 1, self.num_outputs, self.depth),
            score_thresh=0.05,
            nms_thresh=0.5,
        )
        return AnchorFreeHead(reader, neck, network)


@final
class AnchorFreeHead(DetectorHead):
    """See AnchorFree."""

    def new_classifier(self, num_outputs: int) -> nn.Module:
        """Torchvision's."""
        from torchvision.models.detection.fcos import FCOSClassificationHead

        like = cast(Any, self.head).classification_head.cls_logits
        return FCOSClassificationHead(like.in_channels, 1, num_outputs)

    def compute_losses(
        self, targets: list[dict[str, Tensor]], answers: Answers, anchors: list[Tensor], counts: list[int]
    ) -> dict[str, Tensor]:
        """Of "classification", "bbox_regression" and "bbox_ctrness"."""
        return cast("dict[str, Tensor]", self._network[0].compute_loss(targets, answers, anchors, counts))
