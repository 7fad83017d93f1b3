"""Networks of segmentation-models-pytorch: the encoder is our trunk, decoder and last convolution are our head.

config.json is data: the keys below are taken, every other one is ignored.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self, cast, final

from torch import Tensor, nn

from ...errors import DamagedFileError, WeightsMismatchError
from ...nn import TaskHead
from ...packages import require
from ...storage import read_json
from ...vision import SegmentationInput
from .._records import Architecture, BuildOptions, HubSource, Parts, StateDict, Weights
from ._dense import checked_classes, divisible_images, images_of, pixel_loss, place_mask, with_outputs

LICENCE = "mit"
EXPECTED = SegmentationInput(size=None, crop=(256, 256), divisor=32, files=("config.json",))

_RESNET_STAGES = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
_RESNET_ROLES = {"stem": "encoder.conv1", "stages": "encoder.layer?", "convolution": "encoder.layer?.*.conv?"}

# encoder -> stages, roles, and of its ImageNet weights the pinned revision, the licence and the paper
ENCODERS: Mapping[str, tuple[tuple[str, ...], dict[str, str], str, str, str]] = {
    "resnet34": (
        _RESNET_STAGES,
        _RESNET_ROLES,
        "7a57b34f723329ff020b3f8bc41771163c519d0c",
        "bsd-3-clause",
        "He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385",
    ),
    "resnet50": (
        _RESNET_STAGES,
        _RESNET_ROLES,
        "00cb74e366966d59cd9a35af57e618af9f88efe9",
        "bsd-3-clause",
        "He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385",
    ),
    "efficientnet-b0": (
        ("_conv_stem", "_bn0", *(f"_blocks.{block}" for block in range(16))),
        {"stem": "encoder._conv_stem", "stages": "encoder._blocks.*[0-9]", "convolution": "encoder._blocks.*_conv"},
        "1bbe7ecc1d5ea1d2058de1a2db063b8701aff314",
        "apache-2.0",
        "Tan & Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019",
    ),
    "mobilenet_v2": (
        tuple(f"features.{place}" for place in range(19)),
        {
            "stem": "encoder.features.0.0",
            "stages": "encoder.features.*[0-9]",
            "convolution": "encoder.features.*.conv.[0-2]*[0-9]",
        },
        "e67aa804e17f7b404b629127eabbd224c4e0690b",
        "bsd-3-clause",
        "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, arXiv:1801.04381",
    ),
}


@final
class EncoderTrunk(nn.Module):
    """The library's encoder under the library's name. divisor: what has to divide the sides of images."""

    def __init__(self, encoder: Any, channels: int, divisor: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.channels, self.divisor, self.stride = channels, divisor, int(encoder.output_stride)

    def forward(self, inputs: Any) -> tuple[Tensor, ...]:
        """Images (n, channels, h, w) -> maps from half the size on, the smallest last."""
        return tuple(cast(Any, self.encoder)(divisible_images(inputs, self.divisor))[1:])

    def feature_mask(self, inputs: Any) -> Tensor | None:
        """(n, places of the smallest map): 1 where it shows the image; None where no sizes are given."""
        return place_mask(inputs, self.stride)


@final
class DecoderHead(TaskHead):
    """The library's decoder and its last convolution. An activation that a model was saved with is left out."""

    task = "segmentation"

    def __init__(self, decoder: nn.Module, segmentation_head: nn.Sequential) -> None:
        super().__init__()
        self.decoder = decoder
        self.segmentation_head = segmentation_head

    @property
    def num_outputs(self) -> int:
        """Number of classes; one is what is sought against all else."""
        return cast(nn.Conv2d, self.segmentation_head[0]).out_channels

    def forward(self, features: tuple[Tensor, ...], inputs: Any) -> Tensor:
        """Logits (n, classes, height, width) at the size of the input."""
        return self.segmentation_head(self.decoder([images_of(inputs), *features]))

    def losses(self, features: tuple[Tensor, ...], inputs: Any, targets: Any) -> dict[str, Tensor]:
        """Cross-entropy of the pixels, of the logits. targets: see pixel_loss."""
        return {"pixels": pixel_loss(self(features, inputs), targets)}

    def for_classes(self, num_outputs: int) -> Self:
        """The same head with a new last convolution."""
        checked_classes(num_outputs)
        head = copy.deepcopy(self)
        head.segmentation_head[0] = with_outputs(cast(nn.Conv2d, self.segmentation_head[0]), num_outputs)
        return head


def build_smp(options: BuildOptions, *, kind: str, encoder: str) -> Parts:
    """Build the library's `kind` ("Unet", "DeepLabV3Plus") with random weights, as its config.json says."""
    library = require("segmentation_models_pytorch", purpose=f"{kind} on {encoder}", install="neurenix[segmentation]")
    settings = {"in_channels": options.channels, **_read_settings(options.folder, kind, encoder)}
    network = getattr(library, kind)(
        encoder_name=encoder, encoder_weights=None, classes=max(options.num_classes, 1), **settings
    )
    for unused in ("_conv_head", "_bn1"):  # EfficientNet's last layers, which no map comes from
        if hasattr(network.encoder, unused):
            delattr(network.encoder, unused)
    divisor = network.encoder.output_stride if network.requires_divisible_input_shape else 1
    return Parts(
        trunk=EncoderTrunk(network.encoder, settings["in_channels"], divisor),
        head=DecoderHead(network.decoder, network.segmentation_head) if options.num_classes else None,
        feature_size=network.encoder.out_channels[-1],
    )


def encoder_weights(encoder: str) -> dict[str, Weights]:
    """The record of an encoder's ImageNet weights: what pretrains the trunk and leaves the head random."""
    _, _, revision, licence, paper = ENCODERS[encoder]
    record = Weights(
        name="imagenet",
        source=HubSource(repository=f"smp-hub/{encoder}.imagenet", revision=revision),
        licence=licence,
        paper=paper,
        input=EXPECTED,
        convert=convert,
    )
    return {"imagenet": record}


_HEAD = re.compile(r"(decoder|segmentation_head|classification_head)\.")
_ENCODER = re.compile(r"(conv1|bn1|layer\d|fc|_conv_stem|_bn\d|_blocks|_conv_head|_fc|features|classifier)\.")


def convert(state: StateDict) -> StateDict:
    """The library's names to ours, of whole models and of encoders alone."""
    return {_our_key(key): tensor for key, tensor in state.items()}


def _our_key(key: str) -> str:
    if _HEAD.match(key):
        return f"head.{key}"
    if key.startswith("encoder."):
        return f"trunk.{key}"
    return f"trunk.encoder.{key}" if _ENCODER.match(key) else key


def count_classes(state: StateDict) -> int:
    """Outputs of the last convolution in a file; one, as the library has it, for a file of an encoder alone."""
    last = state.get("head.segmentation_head.0.weight")
    return 1 if last is None else last.shape[0]


def _whole(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _among(*values: Any) -> Callable[[Any], bool]:
    return lambda value: any(value is known or (value == known and isinstance(value, str)) for known in values)


def _list_of(most: int) -> Callable[[Any], bool]:
    fits = _whole(1, most)
    return lambda value: isinstance(value, list) and 0 < len(value) <= 5 and all(fits(item) for item in value)


_SHARED: Mapping[str, Callable[[Any], bool]] = {
    "in_channels": _whole(1, 64),
}
# kind -> key of config.json -> whether a value can be used
SETTINGS: Mapping[str, Mapping[str, Callable[[Any], bool]]] = {
    "Unet": {
        **_SHARED,
        "encoder_depth": _whole(3, 5),
        "decoder_channels": _list_of(4096),
        "decoder_use_norm": _among(True, False, "batchnorm", "identity", "instancenorm", "layernorm"),
        "decoder_attention_type": _among(None, "scse"),
        "decoder_interpolation": _among("nearest", "bilinear", "bicubic", "area"),
    },
    "DeepLabV3Plus": {
        **_SHARED,
        "encoder_depth": _whole(3, 5),
        "encoder_output_stride": _whole(8, 16),
        "decoder_channels": _whole(1, 4096),
        "decoder_atrous_rates": _list_of(512),
        "decoder_aspp_separable": _among(True, False),
        "decoder_aspp_dropout": lambda value: isinstance(value, (int, float)) and 0 <= value < 1,
        "upsampling": _whole(1, 16),
    },
}


def _read_settings(folder: str | None, kind: str, encoder: str) -> dict[str, Any]:
    """What config.json in `folder` says of the sizes; nothing where there is none, or where it is an encoder's."""
    path = Path(folder or "", "config.json")
    content = read_json(path) if folder is not None and path.is_file() else {}
    if not isinstance(content, Mapping):
        raise DamagedFileError(f"{path} holds {type(content).__name__} instead of an object with the model's settings.")
    if "_model_class" not in content:
        return {}
    if (content["_model_class"], content.get("encoder_name")) != (kind, encoder):
        raise WeightsMismatchError(
            f"{path} is of {content['_model_class']!r} on {content.get('encoder_name')!r}, not of {kind!r} on "
            f"{encoder!r}; load it under the name of its own architecture."
        )
    found = {key: content[key] for key in SETTINGS[kind] if key in content}
    for key, value in found.items():
        if not SETTINGS[kind][key](value):
            raise DamagedFileError(f"{path} says {key} = {value!r}, which is no setting that can be used.")
    return found


def smp_architectures(kind: str, prefix: str, paper: str) -> list[Architecture]:
    """The library's `kind` on each encoder, called `prefix`-encoder; that on the smallest ResNet first."""
    return [
        Architecture(
            name=f"{prefix}-{encoder}",
            domain="vision",
            tasks=("segmentation", "features"),
            build=partial(build_smp, kind=kind, encoder=encoder),
            input=EXPECTED,
            stages=tuple(f"encoder.{stage}" for stage in stages),
            head_name="",
            pooling="avg",
            paper=paper,
            licence=LICENCE,
            weights=encoder_weights(encoder),
            outputs=1,
            count_outputs=count_classes,
            roles=roles,
        )
        for encoder, (stages, roles, *_) in ENCODERS.items()
    ]
