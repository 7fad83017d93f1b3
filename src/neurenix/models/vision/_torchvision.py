"""What torchvision publishes: records of its weights, and its detectors and segmenters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...vision import ImageInput
from .._records import Architecture, BuildOptions, InputSpec, Parts, StateDict, UrlSource, Weights

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


def trained_on_coco(
    name: str,
    *,
    task: str,
    build: Callable[[BuildOptions], Parts],
    input: InputSpec,
    stages: tuple[str, ...],
    paper: str,
    file: str,
    labels: str,
    convert: Callable[[StateDict], StateDict],
    outputs: int,
    count_outputs: Callable[[StateDict], int | None],
    roles: Mapping[str, str],
) -> Architecture:
    """A detector or segmenter, with the one file that is published for it."""
    return Architecture(
        name=name,
        domain="vision",
        tasks=(task, "features"),
        build=build,
        input=input,
        stages=stages,
        head_name="",
        pooling="avg",
        paper=paper,
        licence=TORCHVISION_LICENCE,
        weights={"coco": torchvision_weights("coco", file, input=input, paper=paper, labels=labels, convert=convert)},
        default_weights="coco",
        outputs=outputs,
        count_outputs=count_outputs,
        roles=roles,
    )
