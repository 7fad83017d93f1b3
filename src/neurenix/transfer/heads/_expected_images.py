"""The preprocessing of a backbone's images, turned into that of images with masks, with boxes, or with labels."""

from __future__ import annotations

import math
from typing import Any, cast

from ...errors import ConfigurationError
from ...vision import (
    DetectionInput,
    DetectionPreprocess,
    ImageInput,
    ImagePreprocess,
    SegmentationInput,
    SegmentationPreprocess,
)

_MULTIPLE = 32  # pixels, of which a detector's images have a whole number where their size allows
_Known = tuple[tuple[int, int], tuple[float, ...], tuple[float, ...]]
_MASKED = (1, 3)  # numbers of channels that images with masks can have


def expected_size(preprocess: Any) -> tuple[int, int] | None:
    """(height, width) of the images that a model reads, where its preprocessing says so; None where it has none."""
    if isinstance(preprocess, ImagePreprocess):
        return preprocess.spec.size
    if isinstance(preprocess, SegmentationPreprocess):
        size = preprocess.spec.size or preprocess.spec.crop
        return (size, size) if isinstance(size, int) else size
    if isinstance(preprocess, DetectionPreprocess):
        spec = preprocess.spec
        return spec.size if spec.resizing == "letterbox" else (spec.size[0], spec.size[0])
    return None


def with_masks(preprocess: Any) -> Any:
    """The preprocessing of images with masks, of the same size, mean and deviation.

    One that is for masks already stays; where there is none, and for channels that such images cannot have, None:
    images and masks have to come as tensors then.
    Raises ConfigurationError for values that it cannot have.
    """
    known = _known(preprocess, SegmentationPreprocess)
    if known is None or len(known[1]) not in _MASKED:
        return preprocess if isinstance(preprocess, SegmentationPreprocess) else None
    size, mean, std = known
    return SegmentationPreprocess(SegmentationInput(size=size, crop=size, mean=mean, std=std, channels=len(mean)))


def with_boxes(preprocess: Any) -> Any:
    """The preprocessing of images with boxes, whose proportions are kept; see with_masks."""
    known = _known(preprocess, DetectionPreprocess)
    if known is None or len(known[1]) != 3:
        return preprocess if isinstance(preprocess, DetectionPreprocess) else None
    size, mean, std = known
    spec = DetectionInput(
        resizing="letterbox",
        size=size,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        multiple=math.gcd(*size, _MULTIPLE),
        antialias=True,
    )
    return DetectionPreprocess(spec)


def with_labels(preprocess: Any) -> Any:
    """The preprocessing itself; of images with masks that of the same images, whole, with something else than masks.

    Raises ConfigurationError for one that scales each image by its own numbers.
    """
    if not isinstance(preprocess, SegmentationPreprocess):
        return preprocess
    size, mean, std = cast("_Known", _known(preprocess, ImagePreprocess))
    return ImagePreprocess(ImageInput(size=size, mean=mean, std=std, interpolation="bilinear", crop=1.0))


def _known(preprocess: Any, wanted: type) -> _Known | None:
    """(height, width), mean and deviation; None where there is nothing to turn."""
    size = expected_size(preprocess)
    if size is None or isinstance(preprocess, wanted):
        return None
    spec = preprocess.spec
    if spec.mean is None or getattr(spec, "channel_order", "rgb") != "rgb":
        raise ConfigurationError(
            f"this model reads images with mean={spec.mean} and channels in the order "
            f"{getattr(spec, 'channel_order', 'rgb')}, which the preprocessing of this head cannot make; set "
            f"model.preprocess to a {wanted.__name__} of your own first."
        )
    return size, spec.mean, spec.std
