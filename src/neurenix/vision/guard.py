"""A look at the first batch of images: is it what the weights were trained on?

Two fingerprints tell how images were normalised. The lattice: pixels come from 256 levels, so under the right
mean and standard deviation (value * std + mean) * 255 is a whole number, for almost every value, and under
any other it is not. It needs no assumption about what the images show. Where pixels were computed with after
scaling to reals (resizing, augmentation) the lattice is gone, and only the extremes are left: normalised
black and white, (0 - mean) / std and (1 - mean) / std, in every channel. The lattice is certain; the extremes
are likely at best.

What cannot be seen here: channels in blue-green-red order that were normalised with the values in
red-green-blue order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.findings import Finding
from ._input import IMAGENET_MEAN, IMAGENET_STD, ImageInput

_LEVELS = 24  # distinct values that a channel needs before its lattice says anything
_ON_LATTICE = 0.95  # share of the distinct values; random erasing may add a few others
_TOLERANCE = 0.02  # in pixel levels for the lattice, in shares of the range for the extremes
_PIXELS = 100_000  # values looked at in each channel


@dataclass(frozen=True)
class Scaling:
    """One way of scaling pixels: (value / 255 - mean) / std per channel. `words` says it to people."""

    words: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def check_images(images: Any, spec: ImageInput) -> list[Finding]:
    """What does not fit in a batch of images; empty when all is well.

    images: (n, channels, height, width). spec: what the weights were trained on.
    """
    structure = _structure(images, spec)
    if any(finding.certain for finding in structure):
        return structure
    finite = torch.isfinite(images.flatten(1)).all(dim=1)
    if not bool(finite.all()):
        bad = (~finite).nonzero().flatten().tolist()
        message = f"images {bad[:8]} of the first batch hold NaN or infinite values; check the transform on them."
        return [*structure, Finding("finite", True, message)]
    values = _per_channel(images)
    scaling = _scaling(values, spec)
    return structure if scaling is None else [*structure, scaling]


def _structure(images: Any, spec: ImageInput) -> list[Finding]:
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.numel():
        got = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        words = f"images have to be a tensor (n, {spec.channels}, height, width); the first batch is {got}."
        return [Finding("layout", True, words)]
    channels, shape = spec.channels, tuple(images.shape)
    if shape[1] != channels and shape[3] == channels:
        words = (
            f"the images are channels-last, {shape}; the weights read (n, channels, height, width). Give "
            "them as uint8 0..255, and model.preprocess does all the rest; if they are normalised already, use "
            "images.permute(0, 3, 1, 2)."
        )
        return [Finding("layout", True, words)]
    if shape[1] != channels:
        words = (
            f"the images have {shape[1]} channels and the weights read {channels}. Convert them "
            f"(image.convert('RGB')), or load the model with input_shape=(height, width, {shape[1]})."
        )
        return [Finding("channels", True, words)]
    if images.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return [Finding("dtype", True, _dtype_advice(images.dtype, spec))]
    if shape[2:] != spec.size:
        return [Finding("size", False, _size_advice(shape, spec))]
    return []


def _dtype_advice(dtype: torch.dtype, spec: ImageInput) -> str:
    if dtype == torch.uint8:
        return f"the images are uint8 values 0..255; {_fix(spec)}"
    if dtype == torch.float64:
        return "the images are float64 and the weights float32; add transforms.ToDtype(torch.float32)."
    return f"the images have type {dtype}; {_fix(spec)}"


def _size_advice(shape: tuple[int, ...], spec: ImageInput) -> str:
    return (
        f"the images are {shape[2]} x {shape[3]} and the weights were trained on {spec.size[0]} x "
        f"{spec.size[1]}; expect worse results. Use transforms.Resize and CenterCrop({spec.size}), or load "
        f"the model with input_shape=({shape[2]}, {shape[3]}, {spec.channels})."
    )


def _scaling(values: Tensor, spec: ImageInput) -> Finding | None:
    """What is wrong with the scaling of `values` (channels, pixels); None when nothing is."""
    expected = Scaling("as the weights expect", spec.mean, spec.std)
    if on_lattice(values, expected):
        return None
    for scaling in _known_scalings(spec):
        if on_lattice(values, scaling):
            return Finding(*_KIND.get(scaling.words, ("normalisation", True)), _wrong(scaling, spec))
    return _by_extremes(values, expected, spec)


_RAW, _UNIT = "as raw values 0..255", "to 0..1 and not normalised"
_KIND = {_RAW: ("range", True), _UNIT: ("range", True)}


def _known_scalings(spec: ImageInput) -> list[Scaling]:
    """The usual ways of scaling, other than the expected one, for images of the spec's channels."""
    count = spec.channels
    known = [
        Scaling(_RAW, (0.0,) * count, (1 / 255,) * count),
        Scaling(_UNIT, (0.0,) * count, (1.0,) * count),
        Scaling("with mean = std = 0.5", (0.5,) * count, (0.5,) * count),
    ]
    if count == 3:
        clip = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        known += [
            Scaling("with ImageNet's mean and std", IMAGENET_MEAN, IMAGENET_STD),
            Scaling("with CLIP's mean and std", *clip),
            Scaling("with mean and std in the order blue, green, red", spec.mean[::-1], spec.std[::-1]),
            Scaling(
                "with ImageNet's mean and std in the order blue, green, red",
                IMAGENET_MEAN[::-1],
                IMAGENET_STD[::-1],
            ),
        ]
    return [scaling for scaling in known if (scaling.mean, scaling.std) != (spec.mean, spec.std)]


def on_lattice(values: Tensor, scaling: Scaling) -> bool:
    """Whether values (channels, pixels) are the 256 levels of an image under `scaling`, in every channel.

    Channels with fewer than 24 distinct values say nothing either way; if all do, the answer is no.
    """
    telling = 0
    for channel, mean, std in zip(values, scaling.mean, scaling.std, strict=True):
        levels = (channel.unique().double() * std + mean) * 255
        if levels.numel() < _LEVELS:
            if not bool(((levels > -1) & (levels < 256)).all()):
                return False
            continue
        hits = ((levels - levels.round()).abs() < _TOLERANCE) & (levels > -1) & (levels < 256)
        if float(hits.double().mean()) < _ON_LATTICE:
            return False
        telling += 1
    return telling > 0


def _by_extremes(values: Tensor, expected: Scaling, spec: ImageInput) -> Finding | None:
    low, high = values.amin(dim=1), values.amax(dim=1)
    black, white = _extremes(expected)
    if bool((low >= 0).all()) and float(high.max()) > 30 and float(high.max()) > 3 * float(white.max()):
        return Finding("range", True, _wrong(Scaling(_RAW, (), ()), spec))
    if _reaches(low, high, black, white):
        return None
    for scaling in _known_scalings(spec):
        if _reaches(low, high, *_extremes(scaling)) and not _same_extremes(scaling, expected):
            return Finding(
                _KIND.get(scaling.words, ("normalisation", True))[0],
                False,
                _wrong(scaling, spec, likely=True),
            )
    width = (white - black)[:, None]
    outside = (values < black[:, None] - 0.05 * width) | (values > white[:, None] + 0.05 * width)
    if float(outside.double().mean()) > 0.05:
        return Finding("normalisation", False, _impossible(low, high, black, white, spec))
    return None


def _extremes(scaling: Scaling) -> tuple[Tensor, Tensor]:
    """Normalised black and white: (channels,) each."""
    mean, std = torch.tensor(scaling.mean), torch.tensor(scaling.std)
    return -mean / std, (1 - mean) / std


def _reaches(low: Tensor, high: Tensor, black: Tensor, white: Tensor) -> bool:
    """Whether the values go from black to white, neither less nor more, in every channel."""
    slack = _TOLERANCE * (white - black)
    return bool(((low - black).abs() < slack).all()) and bool(((high - white).abs() < slack).all())


def _same_extremes(first: Scaling, second: Scaling) -> bool:
    return all(torch.allclose(a, b, atol=0.1) for a, b in zip(_extremes(first), _extremes(second), strict=True))


def _per_channel(images: Tensor) -> Tensor:
    """(channels, pixels) of a batch (n, c, h, w), thinned out evenly to what is quick to look at."""
    values = images.detach().float().cpu().transpose(0, 1).flatten(1)
    return values[:, :: max(1, values.shape[1] // _PIXELS)]


def _fix(spec: ImageInput) -> str:
    mean, std = ([round(value, 4) for value in values] for values in (spec.mean, spec.std))
    return (
        f"the weights expect transforms.ToTensor() followed by transforms.Normalize(mean={mean}, std={std}); "
        "a dataset without transform gets this, resizing included, from model.preprocess."
    )


def _wrong(scaling: Scaling, spec: ImageInput, *, likely: bool = False) -> str:
    return f"the images {'seem to be' if likely else 'are'} scaled {scaling.words}; {_fix(spec)}"


def _impossible(low: Tensor, high: Tensor, black: Tensor, white: Tensor, spec: ImageInput) -> str:
    lows, highs, blacks, whites = ([round(float(v), 2) for v in values] for values in (low, high, black, white))
    std = 1 / (high - low).clamp(min=1e-6)
    means, stds = ([round(float(v), 3) for v in values] for values in (-low * std, std))
    return (
        f"the images reach from {lows} to {highs}, but normalised black and white are {blacks} and {whites}: "
        f"mean and std of about {means} and {stds} seem to have been used; {_fix(spec)}"
    )
