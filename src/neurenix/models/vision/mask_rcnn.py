"""Mask R-CNN: He et al., Mask R-CNN, ICCV 2017; torchvision's networks on a feature pyramid.

`model(inputs)` gives for each image {"boxes": (k, 4) x1 y1 x2 y2, "scores": (k,), "labels": (k,), "masks":
(k, height, width) in [0, 1]} in pixels of the input; it learns from targets with "masks" (n, k, height, width).
Labels are as those of Faster R-CNN.
"""

from __future__ import annotations

from functools import partial

from ...vision import DetectionInput
from .._records import ARCHITECTURES
from ._boxes import convert
from ._regions import build_regions, count_classes
from ._torchvision import trained_on_coco

PAPER = "He et al., Mask R-CNN, ICCV 2017, arXiv:1703.06870"
PAPER_V2 = "Li et al., Benchmarking Detection Transfer Learning with Vision Transformers, 2021, arXiv:2111.11429"
CLASSES = 91
EXPECTED = DetectionInput()
STAGES = tuple(f"backbone.body.{stage}" for stage in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"))

# torchvision's name -> file, eps of its frozen norms (None where norms learn), paper
PUBLISHED: dict[str, tuple[str, float | None, str]] = {
    "maskrcnn_resnet50_fpn": ("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", 0.0, PAPER),
    "maskrcnn_resnet50_fpn_v2": ("maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", None, PAPER_V2),
}

for _name, (_file, _eps, _paper) in PUBLISHED.items():
    ARCHITECTURES.add(
        _name,
        trained_on_coco(
            _name,
            task="detection",
            build=partial(build_regions, name=_name, frozen_eps=_eps),
            input=EXPECTED,
            stages=(*STAGES, "backbone.fpn"),
            paper=_paper,
            file=_file,
            labels="coco-91",
            convert=convert,
            outputs=CLASSES,
            count_outputs=count_classes,
            roles={
                "stem": "backbone.body.conv1",
                "stages": "backbone.body.layer?",
                "convolution": "backbone.body.layer?.*.conv?",
            },
        ),
        *(("mask-rcnn",) if _name == "maskrcnn_resnet50_fpn" else ()),
    )
