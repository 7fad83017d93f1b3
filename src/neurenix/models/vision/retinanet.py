"""RetinaNet: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017; torchvision's networks.

`model(inputs)` gives for each image {"boxes": (k, 4) x1 y1 x2 y2, "scores": (k,), "labels": (k,)} in pixels of the
input. The published labels are COCO's numbers, 1 to 90; `for_classes` makes classes that begin with 0.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, Self, cast, final

from torch import Tensor, nn

from ...packages import require
from ...vision import DetectionInput
from .._records import ARCHITECTURES, BuildOptions, Parts, StateDict
from ._boxes import OneStageHead, convert, freeze_norms, full_precision, image_sizes, unpadded
from ._dense import MapsTrunk, checked_classes, images_of
from ._torchvision import trained_on_coco

PAPER = "Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv:1708.02002"
PAPER_V2 = "Zhang et al., Bridging the Gap Between Anchor-based and Anchor-free Detection, CVPR 2020, arXiv:1912.02424"
CLASSES = 91
STRIDE = 128  # pixels between two places of the smallest map
ANCHORS = 9  # at each place
STAGES = tuple(f"backbone.body.{stage}" for stage in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"))
ROLES = {
    "stem": "backbone.body.conv1",
    "stages": "backbone.body.layer?",
    "convolution": "backbone.body.layer?.*.conv?",
}
EXPECTED = DetectionInput()

# torchvision's name -> file, eps of its frozen norms (None where norms learn), paper
PUBLISHED: dict[str, tuple[str, float | None, str]] = {
    "retinanet_resnet50_fpn": ("retinanet_resnet50_fpn_coco-eeacb38b.pth", 0.0, PAPER),
    "retinanet_resnet50_fpn_v2": ("retinanet_resnet50_fpn_v2_coco-5905b1c5.pth", None, PAPER_V2),
}


@final
class RetinaHead(OneStageHead):
    """Classifies and refines nine anchors at each place of five maps."""

    def forward(self, features: tuple[Tensor, ...], inputs: Any) -> list[dict[str, Tensor]]:
        """Boxes, scores and labels of each image, the best first."""
        network = self._network[0]
        with full_precision(features, next(self.parameters())) as maps:
            answers, anchors = self._run(maps, inputs)
            lengths = [ANCHORS * level.shape[2] * level.shape[3] for level in maps]
            by_level = {name: list(answer.split(lengths, dim=1)) for name, answer in answers.items()}
            parts = [list(of_image.split(lengths)) for of_image in anchors]
            return cast("list[dict[str, Tensor]]", network.postprocess_detections(by_level, parts, image_sizes(inputs)))

    def losses(self, features: tuple[Tensor, ...], inputs: Any, targets: Any) -> dict[str, Tensor]:
        """Torchvision's two losses: focal loss of the classes, L1 of the boxes. targets: see unpadded."""
        wanted = unpadded(targets, 0, with_masks=False)
        with full_precision(features, next(self.parameters())) as maps:
            answers, anchors = self._run(maps, inputs)
            return cast("dict[str, Tensor]", self._network[0].compute_loss(wanted, answers, anchors))

    def for_classes(self, num_outputs: int) -> Self:
        """The same head with a new classifier's last layer, for classes that begin with 0."""
        from torchvision.models.detection.retinanet import RetinaNetClassificationHead

        checked_classes(num_outputs)
        head = copy.deepcopy(self)
        classifier = cast(Any, head.head).classification_head
        like = classifier.cls_logits
        new = RetinaNetClassificationHead(like.in_channels, classifier.num_anchors, num_outputs)
        classifier.cls_logits, classifier.num_classes = new.cls_logits.to(like.weight), num_outputs
        return head

    def _run(self, maps: list[Tensor], inputs: Any) -> tuple[dict[str, Tensor], list[Tensor]]:
        from torchvision.models.detection.image_list import ImageList

        images = ImageList(images_of(inputs), image_sizes(inputs))
        return self.head(maps), self._network[0].anchor_generator(images, maps)


def build_retinanet(options: BuildOptions, *, name: str, frozen_eps: float | None) -> Parts:
    """Build torchvision's `name` with random weights. frozen_eps: of its frozen norms; None where norms learn."""
    detection = require("torchvision.models.detection", purpose=f"the architecture {name}")
    network = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=max(options.num_classes, 1))
    if frozen_eps is not None:
        freeze_norms(network.backbone.body, frozen_eps)
    backbone = network.backbone
    network.backbone, network.transform = nn.Identity(), nn.Identity()  # what the head keeps has no need of them
    return Parts(
        trunk=MapsTrunk(backbone, STRIDE),
        head=RetinaHead(network) if options.num_classes else None,
        feature_size=backbone.out_channels,
    )


def count_classes(state: StateDict) -> int | None:
    """Classes of the classifier in a file, with names as ours; None where it has none."""
    last = state.get("head.head.classification_head.cls_logits.weight")
    return None if last is None else last.shape[0] // ANCHORS


for _name, (_file, _eps, _paper) in PUBLISHED.items():
    ARCHITECTURES.add(
        _name,
        trained_on_coco(
            _name,
            task="detection",
            build=partial(build_retinanet, name=_name, frozen_eps=_eps),
            input=EXPECTED,
            stages=(*STAGES, "backbone.fpn"),
            paper=_paper,
            file=_file,
            labels="coco-91",
            convert=convert,
            outputs=CLASSES,
            count_outputs=count_classes,
            roles=ROLES,
        ),
        *(("retinanet",) if _name == "retinanet_resnet50_fpn" else ()),
    )
