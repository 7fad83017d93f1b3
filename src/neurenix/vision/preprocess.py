"""From a raw image to the tensor that weights expect, and back to a picture."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from ..data import PREPROCESSES, Dataset, PreparedDataset, open_image, to_rgb
from ..data.findings import report
from ..errors import ConfigurationError, InputMismatchError
from ._input import ImageInput
from .guard import check_images

if TYPE_CHECKING:
    from PIL.Image import Image

AUGMENTATIONS: Mapping[str, str] = {
    "none": "resize and centre crop, as in evaluation",
    "light": "random crop of 50 to 100 % of the area, mirrored half of the time",
    "standard": "random crop of 8 to 100 % of the area, mirrored half of the time",
    "strong": "standard, and one random distortion of colour or shape (TrivialAugment)",
}
_MODES = {1: "L", 3: "RGB"}  # four channels are not RGBA here: PIL would weigh colours by the fourth
_FILTERS = {"nearest": 0, "bilinear": 2, "bicubic": 3}  # the numbers of PIL.Image.Resampling


@final
@PREPROCESSES.register("image")
@dataclass(frozen=True)
class ImagePreprocess:
    """One raw image -> (channels, height, width) float32: resize, crop, scale to [0, 1], normalise.

    A raw image is a PIL image, a path, or a uint8 array or tensor (height, width, channels), (channels,
    height, width) or (height, width). Without augmentation the shorter side is resized to floor(size / crop)
    with antialiasing and the centre is cut out, which is what timm does in evaluation.
    spec: what the weights were trained on. augmentation: a key of AUGMENTATIONS.
    """

    reads: ClassVar[str] = "image"

    spec: ImageInput
    augmentation: str = "none"
    _augment: Callable[[Any], Any] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.augmentation not in AUGMENTATIONS:
            raise ConfigurationError(f"augmentation={self.augmentation!r}; possible: {', '.join(AUGMENTATIONS)}.")
        if self.spec.interpolation not in _FILTERS:
            raise ConfigurationError(f"interpolation={self.spec.interpolation!r}; possible: {', '.join(_FILTERS)}.")
        if self.augmentation == "strong" and self.spec.channels not in _MODES:
            raise ConfigurationError(
                f"augmentation='strong' distorts colours, and {self.spec.channels} channels are none; use 'standard'."
            )
        augment = None if self.augmentation == "none" else _augmentation(self.augmentation, self.spec)
        object.__setattr__(self, "_augment", augment)

    def __call__(self, raw: Any) -> Tensor:
        """The tensor of one raw image."""
        if self.spec.channels not in _MODES:
            planes = _all_planes(raw, self.spec.channels)
            small = _resized_planes(planes, self.spec) if self._augment is None else self._augment(planes).float()
            return self._normalised(small / 255)
        image = as_image(raw, _MODES[self.spec.channels])
        image = centre_crop(image, self.spec) if self._augment is None else self._augment(image)
        planes = torch.from_numpy(np.array(image)).reshape(*self.spec.size, self.spec.channels).permute(2, 0, 1)
        return self._normalised(planes.contiguous().float().div_(255))

    def accepts(self, raw: Any) -> bool:
        """Whether `raw` still has to be preprocessed: True for PIL images, paths and uint8 images."""
        return is_raw_image(raw)

    def for_training(self, augmentation: str = "standard") -> ImagePreprocess:
        """The same preprocessing with a random augmentation."""
        return ImagePreprocess(self.spec, augmentation)

    def wrap(self, dataset: Any, training: bool) -> Dataset:
        """`dataset` of raw images as one of tensors; for training augmented, if not chosen yet."""
        augment = training and self.augmentation == "none"
        return PreparedDataset(dataset, self.for_training() if augment else self)

    def check(self, inputs: Any) -> None:
        """Raise InputMismatchError or warn when a batch (n, c, h, w) is not what the weights expect."""
        report(check_images(inputs, self.spec))

    def undo(self, tensor: Tensor) -> Tensor:
        """A normalised image (…, channels, height, width) as uint8, for looking at."""
        mean, std = (
            torch.tensor(values, device=tensor.device)[:, None, None] for values in (self.spec.mean, self.spec.std)
        )
        return ((tensor * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON values."""
        spec = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.spec).items()}
        return {"kind": "image", "augmentation": self.augmentation, **spec}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path | None = None) -> ImagePreprocess:
        """What to_json described. folder: where a saved model lies; images need nothing from it."""
        spec = ImageInput(
            size=(int(values["size"][0]), int(values["size"][1])),
            mean=tuple(values["mean"]),
            std=tuple(values["std"]),
            interpolation=values["interpolation"],
            crop=values["crop"],
        )
        return cls(spec, values["augmentation"])

    def _normalised(self, planes: Tensor) -> Tensor:
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.spec.mean, self.spec.std))
        return planes.sub_(mean).div_(std)


def centre_crop(image: Image, spec: ImageInput) -> Image:
    """Resize an image so that `spec.size` is the share `spec.crop` of it, and cut the centre out.

    Square sizes: the shorter side becomes floor(size / crop) and the longer keeps its proportion, cut to a
    whole number. Others: the image covers (floor(h / crop), floor(w / crop)). Both as timm does.
    """
    height, width = spec.size
    wide, high = resized_size(image.size, spec)
    image = image.resize((wide, high), _FILTERS[spec.interpolation])
    # a crop larger than 1 asks for more than there is: black is added around, as torchvision does
    left, top = round((wide - width) / 2), round((high - height) / 2)
    return image.crop((left, top, left + width, top + height))


def resized_size(size: tuple[int, int], spec: ImageInput) -> tuple[int, int]:
    """(width, height) after resizing an image of `size` (width, height)."""
    width, height = size
    wanted_height, wanted_width = (math.floor(side / spec.crop) for side in spec.size)
    if wanted_height != wanted_width:
        ratio = min(height / wanted_height, width / wanted_width)
        return round(width / ratio), round(height / ratio)
    if width <= height:
        return wanted_width, int(wanted_width * height / width)
    return int(wanted_height * width / height), wanted_height


def _augmentation(name: str, spec: ImageInput) -> Callable[[Any], Any]:
    from torchvision.transforms import InterpolationMode, v2

    mode = InterpolationMode(spec.interpolation)
    scale = (0.5, 1.0) if name == "light" else (0.08, 1.0)
    steps: list[Any] = [
        v2.RandomResizedCrop(spec.size, scale=scale, interpolation=mode),
        v2.RandomHorizontalFlip(),
    ]
    if name == "strong":
        steps.append(v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR))
    augment: Callable[[Any], Any] = v2.Compose(steps)
    return augment


def is_raw_image(raw: Any) -> bool:
    """Whether `raw` is a path, a PIL image or a uint8 image, and no tensor that is ready."""
    if isinstance(raw, (str, os.PathLike)) or type(raw).__module__.startswith("PIL."):
        return True
    return str(getattr(raw, "dtype", "")) in ("uint8", "torch.uint8") and len(raw.shape) in (2, 3)


def as_image(raw: Any, mode: str) -> Image:
    """A raw image of any accepted kind as a PIL image of `mode`."""
    from PIL import Image

    if isinstance(raw, (str, os.PathLike)):
        raw = open_image(raw)
    elif not isinstance(raw, Image.Image):
        planes = _planes(raw, len(mode))
        raw = Image.fromarray(planes.permute(1, 2, 0).squeeze(-1).contiguous().numpy())
    upright = to_rgb(raw)
    return upright if mode == "RGB" else upright.convert(mode)


def _all_planes(raw: Any, channels: int) -> Tensor:
    """A raw image of any kind as (channels, height, width) uint8, for numbers of channels that PIL has no mode for."""
    if isinstance(raw, (str, os.PathLike)):
        raw = open_image(raw)
    if type(raw).__module__.startswith("PIL."):
        raw = np.array(raw.convert("RGBA") if channels == 4 else raw)
    planes = _planes(raw, channels)
    if planes.shape[0] != channels:
        raise InputMismatchError(f"an image with {planes.shape[0]} channels came; {channels} are expected.")
    return planes


def _planes(raw: Any, channels: int) -> Tensor:
    """A uint8 array or tensor in any layout as (channels, height, width)."""
    planes = raw if isinstance(raw, Tensor) else torch.from_numpy(np.array(raw))
    if planes.dtype != torch.uint8:
        raise InputMismatchError(
            f"an image of type {planes.dtype} has no known range; give uint8 values 0..255, a PIL image or a path."
        )
    if planes.ndim == 2:
        return planes[None]
    usual = {channels, 1, 3, 4}
    first, last = (planes.ndim == 3 and planes.shape[side] in usual for side in (0, -1))
    if not first and not last:
        raise InputMismatchError(
            f"an image of shape {tuple(planes.shape)} has no axis of {channels} channels; give (height, "
            "width, channels)."
        )
    # where both ends could be channels: arrays are channels-last and tensors channels-first
    return planes if first and (not last or isinstance(raw, Tensor)) else planes.permute(2, 0, 1)


def _resized_planes(planes: Tensor, spec: ImageInput) -> Tensor:
    """Any number of channels, which PIL cannot hold: the same resize and crop on a tensor, in [0, 255]."""
    wide, high = resized_size((planes.shape[2], planes.shape[1]), spec)
    antialias = spec.interpolation in ("bilinear", "bicubic")
    resized = torch.nn.functional.interpolate(
        planes[None].float(), size=(high, wide), mode=spec.interpolation, antialias=antialias
    )[0]
    left, top = round((wide - spec.size[1]) / 2), round((high - spec.size[0]) / 2)
    return resized[:, top : top + spec.size[0], left : left + spec.size[1]].clamp(0, 255)
