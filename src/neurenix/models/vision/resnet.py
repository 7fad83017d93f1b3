"""ResNet 18 to 152: He et al., Deep Residual Learning for Image Recognition, CVPR 2016.

"imagenet" is the file of the original recipe (plain cross-entropy). Later recipes score higher on ImageNet,
but their label smoothing and heavy augmentation make features that transfer less well (Kornblith et al., Why
Do Better Loss Functions Lead to Less Transferable Features?, NeurIPS 2021); they are here as "imagenet-v2",
"a1".
"""

from __future__ import annotations

from functools import partial

from ...vision import ImageInput
from .._records import ARCHITECTURES, Architecture, Weights
from ._timm import build_timm, timm_weights
from ._torchvision import TORCHVISION_LICENCE, resized, torchvision_weights

PAPER = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385"
STRIKES_BACK = "Wightman et al., ResNet strikes back, NeurIPS Workshops 2021, arXiv:2110.00476"

# depth -> torchvision's files of the first and, where there is one, of the second recipe; timm's tag
PUBLISHED: dict[int, tuple[tuple[str, ...], str]] = {
    18: (("resnet18-f37072fd.pth",), "a1_in1k"),
    34: (("resnet34-b627a593.pth",), "a1_in1k"),
    50: (("resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth"), "a1_in1k"),
    101: (("resnet101-63fe2227.pth", "resnet101-cd907fc2.pth"), "a1h_in1k"),
    152: (("resnet152-394f9c45.pth", "resnet152-f82ba261.pth"), "a1h_in1k"),
}


def _weights(depth: int) -> dict[str, Weights]:
    files, tag = PUBLISHED[depth]
    first_recipe = resized(224, 256)
    records = [
        timm_weights(
            "imagenet", f"resnet{depth}.tv_in1k", input=first_recipe, paper=PAPER, licence=TORCHVISION_LICENCE
        ),
        timm_weights("a1", f"resnet{depth}.{tag}", input=ImageInput(crop=0.95), paper=STRIKES_BACK),
    ]
    for version, (file, expected) in enumerate(zip(files, (first_recipe, resized(224, 232)), strict=False), 1):
        records.append(torchvision_weights(f"imagenet-v{version}", file, input=expected, paper=PAPER))
    return {record.name: record for record in records}


for _depth in PUBLISHED:
    ARCHITECTURES.add(
        f"resnet{_depth}",
        Architecture(
            name=f"resnet{_depth}",
            domain="vision",
            tasks=("classification", "features"),
            build=partial(build_timm, name=f"resnet{_depth}"),
            input=ImageInput(interpolation="bilinear"),
            stages=("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"),
            head_name="fc",
            pooling="avg",
            paper=PAPER,
            licence="apache-2.0",
            weights=_weights(_depth),
            roles={"stem": "conv1", "stages": "layer?", "convolution": "layer?.*.conv?"},
        ),
    )
