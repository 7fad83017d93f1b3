"""The records of weights that torchvision publishes."""

from __future__ import annotations

from collections.abc import Callable

from ...vision import ImageInput
from .._records import InputSpec, StateDict, UrlSource, Weights

TORCHVISION_LICENCE = "bsd-3-clause"


def torchvision_weights(
    name: str,
    file: str,
    *,
    input: InputSpec,
    paper: str,
    labels: str = "imagenet-1k",
    convert: Callable[[StateDict], StateDict] | None = None,
) -> Weights:
    """The record of one file; the digits at the end of its name are the first of its SHA-256."""
    sha256 = file.removesuffix(".pth").rsplit("-", 1)[1]
    return Weights(
        name=name,
        source=UrlSource(url=f"https://download.pytorch.org/models/{file}", sha256=sha256),
        licence=TORCHVISION_LICENCE,
        paper=paper,
        input=input,
        sha256=sha256,
        labels=labels,
        convert=convert,
    )


def resized(crop_size: int, resize_size: int, interpolation: str = "bilinear") -> ImageInput:
    """ImageNet's mean and standard deviation; the shorter side goes to `resize_size`, the centre is kept."""
    return ImageInput(size=(crop_size, crop_size), interpolation=interpolation, crop=crop_size / resize_size)
