"""U-Net: Ronneberger, Fischer & Brox, U-Net, MICCAI 2015.

`unet-resnet34`… are those of segmentation-models-pytorch. Their weights "imagenet" are an encoder's: the trunk is
pretrained and the head, the decoder, is random, as the load report says; it has to be trained. A folder written by the
library's save_pretrained brings both. `model(inputs)` gives logits, (n, classes, height, width).

`unet-brain-mri` is a complete published network for tumours in brain MRI: one class, whose logits it gives.
"""

from __future__ import annotations

import re

from ...vision import SegmentationInput
from .._records import ARCHITECTURES, Architecture, StateDict, UrlSource, Weights
from ._brain_unet import LEVELS, build_brain_unet
from ._smp import smp_architectures

PAPER = "Ronneberger, Fischer & Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015"
BRAIN_PAPER = (
    "Buda, Saha & Mazurowski, Association of genomic subtypes of lower-grade gliomas with shape features, 2019"
)
BRAIN_FILE = "https://github.com/mateuszbuda/brain-segmentation-pytorch/releases/download/v1.0/unet-e012d006.pt"
BRAIN_INPUT = SegmentationInput(size=(256, 256), divisor=16, mean=None, std=None)


def convert_brain(state: StateDict) -> StateDict:
    """The published names to ours: the contracting side is the trunk's, the expanding one the head's."""
    return {
        re.sub(
            r"^((upconv|decoder)\d\.|conv\.)", r"head.\1", re.sub(r"^(encoder\d\.|bottleneck\.)", r"trunk.\1", key)
        ): x
        for key, x in state.items()
    }


def count_brain_classes(state: StateDict) -> int | None:
    """Outputs of the last convolution in a file, with names as ours; None where it has none."""
    last = state.get("head.conv.weight")
    return None if last is None else last.shape[0]


for _place, _architecture in enumerate(smp_architectures("Unet", "unet", PAPER)):
    ARCHITECTURES.add(_architecture.name, _architecture, *(("unet",) if _place == 0 else ()))

ARCHITECTURES.add(
    "unet-brain-mri",
    Architecture(
        name="unet-brain-mri",
        domain="vision",
        tasks=("segmentation", "features"),
        build=build_brain_unet,
        input=BRAIN_INPUT,
        stages=(*(f"encoder{level}" for level in LEVELS), "bottleneck"),
        head_name="",
        pooling="avg",
        paper=PAPER,
        licence="mit",
        weights={
            "brain-mri": Weights(
                name="brain-mri",
                source=UrlSource(url=BRAIN_FILE, sha256="e012d006"),
                licence="mit",
                paper=BRAIN_PAPER,
                input=BRAIN_INPUT,
                sha256="e012d006",
                convert=convert_brain,
            )
        },
        default_weights="brain-mri",
        outputs=1,
        count_outputs=count_brain_classes,
        roles={"stem": "encoder1.enc1conv1", "stages": "encoder?", "convolution": "*conv?", "mlp.out": "encoder?"},
    ),
    "brain-unet",
)
