"""What adaptations of image models share: what the model reads, and which layer reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias, cast

from torch import Tensor, nn

from ...errors import ConfigurationError, EditError
from ...models import PretrainedModel, match_layers
from ...nn import BASE_LAYER, Extended
from ...vision import ImagePreprocess, SegmentationPreprocess
from ..surgery._trial import Flow, example_inputs

Scaled: TypeAlias = "ImagePreprocess | SegmentationPreprocess"


def check_is_model(model: object) -> PretrainedModel:
    """The model. Raises ConfigurationError for what load_pretrained_model or adopt did not make."""
    if not isinstance(model, PretrainedModel):
        raise ConfigurationError(
            f"inputs are adapted of what load_pretrained_model gives; this is of type {type(model).__name__}. A torch "
            "module of your own becomes one by neurenix.models.adopt(module)."
        )
    return model


def check_images(model: PretrainedModel, *, classifies: bool = False) -> None:
    """Raise EditError for a model that reads something else than images, or, where it `classifies`, answers in places.

    A module of one's own, of which nothing tells what it reads, passes.
    """
    reads = getattr(model.preprocess, "reads", None)
    if reads != "image" and (reads is not None or model.domain not in ("vision", "custom")):
        raise EditError(
            f"{model.name} reads {_WORDS.get(str(reads), 'no images')}, and this adapts a model of images. The model "
            "is as it was."
        )
    if classifies and not isinstance(model.preprocess, ImagePreprocess):
        raise EditError(
            f"{model.name} is no network of plain images with preprocessing of its own, such as resnet50 or "
            "vit-base-patch16-224, so it cannot be made to read something else. The model is as it was."
        )


_WORDS = {
    "text": "texts",
    "sound": "sounds",
    "music": "music",
    "video": "videos",
    "table": "tables",
    "series": "series",
}


def stem_of(model: PretrainedModel, flow: Flow) -> str:
    """Qualified name of the first convolution. flow: of a batch through the model.

    Raises EditError where images do not enter the network by one: space-to-depth stems read their blocks of pixels.
    """
    names = [name for name in flow.given if isinstance(_inner(model, name), nn.Conv2d)]
    if model.architecture is not None:
        pattern = model.architecture.roles["stem"]
        names = [name for name in match_layers(model, pattern) if isinstance(_inner(model, name), nn.Conv2d)] or names
    if not names:
        raise EditError(f"{model.name} has no 2-D convolution that reads its images. The model is as it was.")
    return f"{names[0]}.{BASE_LAYER}" if isinstance(model.get_submodule(names[0]), Extended) else names[0]


def channels_read(model: PretrainedModel, stem: str, inputs: Any) -> int:
    """Channels of the images that the model reads. Raises EditError where its first layer reads another number."""
    images = inputs["images"] if isinstance(inputs, Mapping) and "images" in inputs else inputs
    reads = cast(nn.Conv2d, model.get_submodule(stem)).in_channels
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != reads:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise EditError(
            f"layer {stem.removeprefix('trunk.')!r} reads {reads} channels, and the model {shape}: what stands in "
            "front of it, space to depth for instance, mixes places and channels, so no filter belongs to one of "
            "them. The model is as it was."
        )
    return reads


def with_scaling(preprocess: Scaled, mean: tuple[float, ...], std: tuple[float, ...]) -> Scaled:
    """The same preprocessing for images of as many channels as there are means. Raises EditError where it has none."""
    if isinstance(preprocess, ImagePreprocess):
        if preprocess.spec.channels == len(mean) or preprocess.augmentation != "strong":
            return ImagePreprocess(replace(preprocess.spec, mean=mean, std=std), preprocess.augmentation)
        raise EditError("augmentation='strong' distorts the three colours; take for_training('standard') first.")
    if len(mean) not in (1, 3):
        raise EditError(
            f"a segmentation model reads grey or coloured images, 1 or 3 channels, and {len(mean)} were asked for. The "
            "model is as it was."
        )
    scaled = preprocess.spec.mean is not None
    spec = replace(preprocess.spec, channels=len(mean), mean=mean if scaled else None, std=std if scaled else None)
    return SegmentationPreprocess(spec, preprocess.augmentation)


def inputs_with_channels(model: nn.Module, inputs: Any, channels: int) -> Any:
    """A batch of images of so many channels: of the model's preprocessing, or zeros as large as `inputs`."""
    if getattr(model, "preprocess", None) is not None:
        return example_inputs(model)
    return inputs.new_zeros(inputs.shape[0], channels, *inputs.shape[2:])


def _inner(model: nn.Module, name: str) -> nn.Module:
    layer = model.get_submodule(name)
    return layer.base_layer if isinstance(layer, Extended) else layer
