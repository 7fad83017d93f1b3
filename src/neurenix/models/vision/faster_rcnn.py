"""Faster R-CNN: Ren et al., Towards Real-Time Object Detection with Region Proposal Networks, NeurIPS 2015.

torchvision's networks on a feature pyramid. `model(inputs)` gives for each image {"boxes": (k, 4) x1 y1 x2 y2,
"scores": (k,), "labels": (k,)} in pixels of the input. The published labels are COCO's numbers, 1 to 90, and 0 is the
background; classes of one's own begin with 0.
"""

from __future__ import annotations

from functools import partial

from ...vision import DetectionInput
from .._records import ARCHITECTURES
from ._boxes import convert
from ._regions import build_regions, count_classes
from ._torchvision import trained_on_coco

PAPER = "Ren et al., Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, NeurIPS 2015"
PAPER_V2 = "Li et al., Benchmarking Detection Transfer Learning with Vision Transformers, 2021, arXiv:2111.11429"
CLASSES = 91
LARGE, SMALL = DetectionInput(), DetectionInput(size=(320, 640))

RESNET_STAGES = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
RESNET_ROLES = {
    "stem": "backbone.body.conv1",
    "stages": "backbone.body.layer?",
    "convolution": "backbone.body.layer?.*.conv?",
}
MOBILENET_STAGES = tuple(str(place) for place in range(17))
MOBILENET_ROLES = {
    "stem": "backbone.body.0.0",
    "stages": "backbone.body.*[0-9]",
    "convolution": "backbone.body.*.block.*.0",
}

# torchvision's name -> file, eps of its frozen norms (None where norms learn), images, paper
PUBLISHED: dict[str, tuple[str, float | None, DetectionInput, str]] = {
    "fasterrcnn_resnet50_fpn": ("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", 0.0, LARGE, PAPER),
    "fasterrcnn_resnet50_fpn_v2": ("fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", None, LARGE, PAPER_V2),
    "fasterrcnn_mobilenet_v3_large_fpn": ("fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth", 1e-5, LARGE, PAPER),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (
        "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth",
        1e-5,
        SMALL,
        PAPER,
    ),
}

for _name, (_file, _eps, _expected, _paper) in PUBLISHED.items():
    _is_mobile = "mobilenet" in _name
    _stages = MOBILENET_STAGES if _is_mobile else RESNET_STAGES
    ARCHITECTURES.add(
        _name,
        trained_on_coco(
            _name,
            task="detection",
            build=partial(build_regions, name=_name, frozen_eps=_eps),
            input=_expected,
            stages=(*(f"backbone.body.{stage}" for stage in _stages), "backbone.fpn"),
            paper=_paper,
            file=_file,
            labels="coco-91",
            convert=convert,
            outputs=CLASSES,
            count_outputs=count_classes,
            roles=MOBILENET_ROLES if _is_mobile else RESNET_ROLES,
        ),
        *(("faster-rcnn",) if _name == "fasterrcnn_resnet50_fpn" else ()),
    )
