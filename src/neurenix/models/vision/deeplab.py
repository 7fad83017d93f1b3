"""DeepLabV3 of torchvision: Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017.

`model(inputs)` gives the logits of each pixel's class, (n, classes, height, width), at the size of the input. The
published weights were trained on the images of COCO that show Pascal VOC's twenty classes; 0 is the background.
"""

from __future__ import annotations

import copy
import re
from functools import partial
from typing import Any, Self, cast, final

from torch import Tensor, nn
from torch.nn import functional

from ...nn import TaskHead
from ...packages import require
from ...vision import SegmentationInput
from .._records import ARCHITECTURES, BuildOptions, Parts, StateDict
from ._dense import MapsTrunk, checked_classes, images_of, pixel_loss, with_outputs
from ._torchvision import trained_on_coco

PAPER = "Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017, arXiv:1706.05587"
CLASSES = 21
AUXILIARY_WEIGHT = 0.5  # of the second classifier's loss in the recipe of the published weights
EXPECTED = SegmentationInput(size=520, crop=(480, 480))

RESNET_STAGES = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
RESNET_ROLES = {
    "stem": "backbone.conv1",
    "stages": "backbone.layer?",
    "convolution": "backbone.layer?.*.conv?",
}
MOBILENET_ROLES = {"stem": "backbone.0.0", "stages": "backbone.*[0-9]", "convolution": "backbone.*.block.*.0"}

# torchvision's name -> file, stages, pixels between two places of the last map
PUBLISHED = {
    "deeplabv3_resnet50": ("deeplabv3_resnet50_coco-cd0a2569.pth", RESNET_STAGES, 8),
    "deeplabv3_resnet101": ("deeplabv3_resnet101_coco-586e9e4e.pth", RESNET_STAGES, 8),
    "deeplabv3_mobilenet_v3_large": (
        "deeplabv3_mobilenet_v3_large-fc3c493d.pth",
        tuple(str(place) for place in range(17)),
        16,
    ),
}


@final
class DeepLabHead(TaskHead):
    """Atrous pyramid and classifier on the last map; a second classifier on an earlier one helps in training."""

    task = "segmentation"

    def __init__(self, classifier: nn.Sequential, aux_classifier: nn.Sequential | None) -> None:
        super().__init__()
        self.classifier = classifier
        self.aux_classifier = aux_classifier

    @property
    def num_outputs(self) -> int:
        """Number of classes, the background among them."""
        return cast(nn.Conv2d, self.classifier[-1]).out_channels

    def forward(self, features: tuple[Tensor, ...], inputs: Any) -> Tensor:
        """Logits (n, classes, height, width) at the size of the input."""
        return _upsampled(self.classifier(features[-1]), inputs)

    def losses(self, features: tuple[Tensor, ...], inputs: Any, targets: Any) -> dict[str, Tensor]:
        """Cross-entropy of the pixels, and half of the second classifier's. targets: see pixel_loss."""
        shares = {"pixels": pixel_loss(self(features, inputs), targets)}
        if self.aux_classifier is not None:
            logits = _upsampled(self.aux_classifier(features[0]), inputs)
            shares["auxiliary"] = AUXILIARY_WEIGHT * pixel_loss(logits, targets)
        return shares

    def for_classes(self, num_outputs: int) -> Self:
        """The same head with a new last layer in both classifiers."""
        checked_classes(num_outputs)
        head = copy.deepcopy(self)
        for classifier in (head.classifier, head.aux_classifier):
            if classifier is not None:
                classifier[-1] = with_outputs(cast(nn.Conv2d, classifier[-1]), num_outputs)
        return head


def _upsampled(logits: Tensor, inputs: Any) -> Tensor:
    size = images_of(inputs).shape[-2:]
    return functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def build_deeplab(options: BuildOptions, *, name: str, stride: int) -> Parts:
    """Build torchvision's `name` with random weights; a file without a second classifier gets none."""
    segmentation = require("torchvision.models.segmentation", purpose=f"the architecture {name}")
    has_auxiliary = options.state is None or any(key.startswith("head.aux_classifier.") for key in options.state)
    network = getattr(segmentation, name)(
        weights=None, weights_backbone=None, num_classes=max(options.num_classes, 1), aux_loss=True
    )
    auxiliary = network.aux_classifier if has_auxiliary else None
    return Parts(
        trunk=MapsTrunk(network.backbone, stride),
        head=DeepLabHead(network.classifier, auxiliary) if options.num_classes else None,
        feature_size=network.classifier[0].convs[0][0].in_channels,
    )


def convert(state: StateDict) -> StateDict:
    """Torchvision's names to ours: `backbone` is the trunk's, both classifiers are the head's."""
    return {_our_key(key): tensor for key, tensor in state.items()}


def _our_key(key: str) -> str:
    return re.sub(r"^((aux_)?classifier\.)", r"head.\1", re.sub(r"^backbone\.", "trunk.backbone.", key))


def count_classes(state: StateDict) -> int | None:
    """Outputs of the classifier in a file, with names as ours; None where it has none."""
    last = state.get("head.classifier.4.weight")
    return None if last is None else last.shape[0]


for _name, (_file, _stages, _stride) in PUBLISHED.items():
    ARCHITECTURES.add(
        _name,
        trained_on_coco(
            _name,
            task="segmentation",
            build=partial(build_deeplab, name=_name, stride=_stride),
            input=EXPECTED,
            stages=tuple(f"backbone.{stage}" for stage in _stages),
            paper=PAPER,
            file=_file,
            labels="voc-21",
            convert=convert,
            outputs=CLASSES,
            count_outputs=count_classes,
            roles=MOBILENET_ROLES if "mobilenet" in _name else RESNET_ROLES,
        ),
        *(("deeplabv3", "deeplab") if _name == "deeplabv3_resnet50" else ()),
    )
