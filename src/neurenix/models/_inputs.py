"""What a model's inputs look like: from the weights' record, the caller's input_shape and max_length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..storage import read_json
from ..vision import DetectionInput, ImageInput, SegmentationInput
from ..vision.channels import channel_scaling, usual_map

_MOST_PIXELS = 8192  # of a side


def fit_image_input(expected: ImageInput, input_shape: Sequence[int] | None) -> ImageInput:
    """The images that weights expect, in another (height, width, channels).

    Means and deviations follow the filters of the first layer: one channel takes the average, several repeat them in
    turn; see vision.channels.
    """
    if input_shape is None:
        return expected
    height, width, channels = _checked_shape(input_shape)
    if channels == expected.channels:
        return replace(expected, size=(height, width))
    matrix = usual_map(channels, expected.channels)
    mean, std = (channel_scaling(values, matrix) for values in (expected.mean, expected.std))
    return replace(expected, size=(height, width), mean=mean, std=std)


def fit_sized_input(
    expected: DetectionInput | SegmentationInput, input_shape: Sequence[int] | None
) -> DetectionInput | SegmentationInput:
    """The images that a detector or segmenter expects, in another size.

    That of a detector's letterbox, or the shorter and the longer side that it allows; a segmenter's images are brought
    to exactly this size.
    """
    if input_shape is None:
        return expected
    if isinstance(expected, SegmentationInput):
        size = _checked_colours(input_shape, expected.channels)
        return replace(expected, size=size, crop=size)
    size = _checked_colours(input_shape, 3)
    return replace(expected, size=size if expected.resizing == "letterbox" else (min(size), max(size)))


def _checked_colours(input_shape: Sequence[int], expected: int) -> tuple[int, int]:
    height, width, channels = _checked_shape(input_shape)
    if channels != expected:
        raise ConfigurationError(
            f"input_shape={tuple(input_shape)} has {channels} channels, and this model reads {expected}; give (height, "
            f"width, {expected})."
        )
    return height, width


def image_input_in(folder: Path | None, default: ImageInput) -> ImageInput:
    """The image input that a timm-style config.json beside the weights states, else `default`."""
    path = (folder or Path()) / "config.json"
    if folder is None or not path.is_file():
        return default
    content = read_json(path)
    stated = content.get("pretrained_cfg") if isinstance(content, Mapping) else None
    if not isinstance(stated, Mapping):
        return default
    try:
        return _from_timm(stated, default)
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        raise ConfigurationError(f"{path} states an image input that cannot be used ({error}).") from None


def _checked_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
    shape = tuple(input_shape) if isinstance(input_shape, Sequence) else (input_shape,)
    if len(shape) != 3 or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in shape):
        raise ConfigurationError(
            f"input_shape={input_shape!r}; it is (height, width, channels), three positive whole numbers."
        )
    if shape[2] > 16 and shape[0] <= 16:
        raise ConfigurationError(
            f"input_shape={shape} has its channels first; write (height, width, channels): "
            f"{(shape[1], shape[2], shape[0])}."
        )
    return shape


def _from_timm(stated: Mapping[str, Any], default: ImageInput) -> ImageInput:
    size = stated.get("input_size", (len(default.mean), *default.size))
    found = ImageInput(
        size=(int(size[1]), int(size[2])),
        mean=tuple(float(value) for value in stated.get("mean", default.mean)),
        std=tuple(float(value) for value in stated.get("std", default.std)),
        interpolation=str(stated.get("interpolation", default.interpolation)),
        crop=float(stated.get("crop_pct", default.crop)),
    )
    numbers = (*found.mean, *found.std, found.crop)
    usable = all(0 < side <= _MOST_PIXELS for side in found.size) and all(map(math.isfinite, numbers))
    if not usable or not found.mean or len(found.mean) != len(found.std) or min(*found.std, found.crop) <= 0:
        raise ValueError(f"size {found.size}, mean {found.mean}, std {found.std}, crop_pct {found.crop}")
    return found
