"""MobileNetV2: Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018."""

from __future__ import annotations

from functools import partial

from ...vision import ImageInput
from .._records import ARCHITECTURES, Architecture, StateDict
from ._timm import build_timm, timm_weights
from ._torchvision import resized, torchvision_weights

PAPER = "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, arXiv:1801.04381"
STAGE_LENGTHS = (1, 2, 3, 4, 3, 3, 1)


def convert_torchvision(state: StateDict) -> StateDict:
    """Rename torchvision's keys (`features.4.conv.0.0.weight`) to timm's (`blocks.2.0.conv_pw.weight`)."""
    return {_timm_key(key): tensor for key, tensor in state.items()}


def _timm_key(key: str) -> str:
    for prefix, name in _PREFIXES.items():
        if key.startswith(prefix):
            return name + key.removeprefix(prefix)
    return key


def _prefixes() -> dict[str, str]:
    """The prefix of torchvision's keys -> of timm's; the first stage has no expanding convolution."""
    pairs = {
        "features.0.0.": "conv_stem.",
        "features.0.1.": "bn1.",
        "features.18.0.": "conv_head.",
        "features.18.1.": "bn2.",
        "classifier.1.": "classifier.",
    }
    first = {"0.0.": "conv_dw.", "0.1.": "bn1.", "1.": "conv_pw.", "2.": "bn2."}
    expanding = {
        "0.0.": "conv_pw.",
        "0.1.": "bn1.",
        "1.0.": "conv_dw.",
        "1.1.": "bn2.",
        "2.": "conv_pwl.",
        "3.": "bn3.",
    }
    places = [(stage, place) for stage, length in enumerate(STAGE_LENGTHS) for place in range(length)]
    for number, (stage, place) in enumerate(places, 1):
        for ours, theirs in (expanding if stage else first).items():
            pairs[f"features.{number}.conv.{ours}"] = f"blocks.{stage}.{place}.{theirs}"
    return pairs


_PREFIXES = _prefixes()

ARCHITECTURES.add(
    "mobilenetv2",
    Architecture(
        name="mobilenetv2",
        domain="vision",
        tasks=("classification", "features"),
        build=partial(build_timm, name="mobilenetv2_100"),
        input=ImageInput(),
        stages=("conv_stem", "bn1", *(f"blocks.{stage}" for stage in range(7)), "conv_head", "bn2"),
        head_name="classifier",
        pooling="avg",
        paper=PAPER,
        licence="apache-2.0",
        weights={
            "imagenet": timm_weights("imagenet", "mobilenetv2_100.ra_in1k", input=ImageInput(), paper=PAPER),
            "imagenet-v1": torchvision_weights(
                "imagenet-v1",
                "mobilenet_v2-b0353104.pth",
                input=resized(224, 256),
                paper=PAPER,
                convert=convert_torchvision,
            ),
            "imagenet-v2": torchvision_weights(
                "imagenet-v2",
                "mobilenet_v2-7ebf99e0.pth",
                input=resized(224, 232),
                paper=PAPER,
                convert=convert_torchvision,
            ),
        },
        roles={
            "stem": "conv_stem",
            "stages": "blocks.[0-6]",
            "convolution": "blocks.*.conv_pw*",
            "convolution.depthwise": "blocks.*.conv_dw",
        },
    ),
    "mobilenetv2_100",
)
