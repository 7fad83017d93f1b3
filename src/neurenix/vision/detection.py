"""From a raw image and its boxes to what a detector reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..data import PREPROCESSES, Dataset
from ..data.findings import Finding, report
from ..errors import ConfigurationError
from ._detection_input import DetectionInput
from .boxed import BoxedDataset, scale_target
from .boxes import Detections, detections_in_original, letterbox_size, shorter_side_size
from .preprocess import as_image, is_raw_image

DETECTION_AUGMENTATIONS: Mapping[str, str] = {
    "none": "nothing, as in evaluation",
    "standard": "mirrored half of the time; brightness, contrast, saturation and hue changed a little",
}


@final
@PREPROCESSES.register("detection")
@dataclass(frozen=True)
class DetectionPreprocess:
    """One raw image -> {"images": (3, h, w) float32, "image_sizes": (2,), "original_sizes": (2,)} int64.

    A raw image is a PIL image, a path, or a uint8 array or tensor. image_sizes: height and width of the part of
    `images` that the image fills, from the top left; original_sizes: height and width that it had. Bilinear
    interpolation.
    spec: what the weights were trained on. augmentation: a key of DETECTION_AUGMENTATIONS.
    """

    reads: ClassVar[str] = "image"

    spec: DetectionInput
    augmentation: str = "none"
    _augment: Callable[..., Any] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.augmentation not in DETECTION_AUGMENTATIONS:
            raise ConfigurationError(
                f"augmentation={self.augmentation!r}; possible: {', '.join(DETECTION_AUGMENTATIONS)}."
            )
        object.__setattr__(self, "_augment", None if self.augmentation == "none" else _augmentation())

    def __call__(self, raw: Any) -> dict[str, Tensor]:
        """The tensors of one raw image."""
        return self.with_target(raw, None)[0]

    def with_target(self, raw: Any, target: Any) -> tuple[dict[str, Tensor], Any]:
        """The tensors of one raw image, and its target with boxes and masks changed as the image was.

        target: {"boxes": (k, 4) float32, "labels": (k,) int64, "masks": (k, h, w) uint8 or none} in pixels of the raw
        image. Anything else (a class number, None) stays as it is.
        """
        planes = torch.from_numpy(np.array(as_image(raw, "RGB"))).permute(2, 0, 1)
        if self._augment is not None:
            planes, target = self._augmented(planes, target)
        original = torch.tensor(planes.shape[1:])
        pixels, used = self._resized(planes)
        if isinstance(target, Mapping):
            target = scale_target(target, original, used, pixels.shape[1:])
        return {"images": pixels, "image_sizes": used, "original_sizes": original}, target

    def accepts(self, raw: Any) -> bool:
        """Whether `raw` still has to be preprocessed: True for PIL images, paths and uint8 images."""
        return is_raw_image(raw)

    def for_training(self, augmentation: str = "standard") -> DetectionPreprocess:
        """The same preprocessing with a random augmentation."""
        return DetectionPreprocess(self.spec, augmentation)

    def wrap(self, dataset: Any, training: bool) -> Dataset:
        """`dataset` of raw images as one of tensors; for training augmented, if not chosen yet."""
        augment = training and self.augmentation == "none"
        return BoxedDataset(dataset, self.for_training() if augment else self)

    def check(self, inputs: Any) -> None:
        """Raise InputMismatchError or warn when a batch is not what the weights expect."""
        report(_findings(inputs, self.spec))

    def restore(self, detections: Sequence[Detections], inputs: Any) -> list[Detections]:
        """What a detector found in a batch, in pixels of the images as they came; of ready tensors in theirs."""
        is_ready = not isinstance(inputs, Mapping) or "original_sizes" not in inputs
        return list(detections) if is_ready else detections_in_original(detections, inputs)

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON values."""
        spec = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.spec).items()}
        return {"kind": "detection", "augmentation": self.augmentation, **spec}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path | None = None) -> DetectionPreprocess:
        """What to_json described. folder: where a saved model lies; images need nothing from it."""
        spec = {name: values[name] for name in asdict(DetectionInput())}
        tuples: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in spec.items()
        }
        return cls(DetectionInput(**tuples), values["augmentation"])

    def _augmented(self, planes: Tensor, target: Any) -> tuple[Tensor, Any]:
        """Image and boxes after the same random change; torchvision knows from their classes what is what."""
        from torchvision import tv_tensors

        assert self._augment is not None
        if not isinstance(target, Mapping):
            return self._augment(tv_tensors.Image(planes)).as_subclass(Tensor), target
        marked: dict[str, Any] = dict(target)
        marked["boxes"] = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=tuple(planes.shape[1:]))
        if "masks" in target:
            marked["masks"] = tv_tensors.Mask(target["masks"])
        image, changed = self._augment(tv_tensors.Image(planes), marked)
        return image.as_subclass(Tensor), {name: value.as_subclass(Tensor) for name, value in changed.items()}

    def _resized(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """(3, h, w) uint8, red first -> what the network reads, and height and width of the image in it."""
        spec = self.spec
        size = (planes.shape[1], planes.shape[2])
        box = spec.resizing == "letterbox"
        height, width = letterbox_size(size, spec.size) if box else shorter_side_size(size, *spec.size)
        values = planes.float() if spec.mean is None else _normalised(planes, spec)
        if size != (height, width):
            values = functional.interpolate(
                values[None], size=(height, width), mode="bilinear", align_corners=False, antialias=spec.antialias
            )[0]
        if spec.mean is None:
            values = values.round()  # published with bytes between resizing and network
        if spec.channel_order == "bgr":
            values = values.flip(0)
        if box:
            values = functional.pad(values, (0, spec.size[1] - width, 0, spec.size[0] - height), value=spec.fill)
        return values.contiguous(), torch.tensor([height, width])


def _normalised(planes: Tensor, spec: DetectionInput) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    return (planes.float() / 255 - mean) / std


def _augmentation() -> Callable[..., Any]:
    from torchvision.transforms import v2

    augment: Callable[..., Any] = v2.Compose(
        [v2.RandomHorizontalFlip(), v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.02)]
    )
    return augment


def _findings(inputs: Any, spec: DetectionInput) -> list[Finding]:
    """What does not fit in a batch: a mapping with "images", or the images (n, 3, h, w) alone."""
    images = inputs.get("images") if isinstance(inputs, Mapping) else inputs
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3 or not images.numel():
        got = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(inputs).__name__
        message = (
            f'a detector reads {{"images": (n, 3, height, width), "image_sizes": (n, 2), …}}; the batch holds {got}. '
            "model.preprocess makes it from images."
        )
        return [Finding("layout", True, message)]
    if not images.is_floating_point():
        message = f"the images have type {images.dtype}; {_advice(spec)}"
        return [Finding("dtype", True, message)]
    if not bool(torch.isfinite(images).all()):
        return [Finding("finite", True, "the images hold NaN or infinite values; check the transform on them.")]
    return _range(images, spec) + _sides(images, spec)


def _range(images: Tensor, spec: DetectionInput) -> list[Finding]:
    low, high = float(images.min()), float(images.max())
    if spec.mean is None and (low < -1 or high > 256 or high <= 1.5 < spec.fill):
        return [
            Finding("range", low < -1 or high > 256, f"the images reach from {low:.3g} to {high:.3g}; {_advice(spec)}")
        ]
    if spec.mean is not None and high > 30:
        return [Finding("range", True, f"the images reach up to {high:.3g}; {_advice(spec)}")]
    return []


def _sides(images: Tensor, spec: DetectionInput) -> list[Finding]:
    if not any(side % spec.multiple for side in images.shape[2:]):
        return []
    message = (
        f"the images are {images.shape[2]} x {images.shape[3]}; height and width have to be multiples of "
        f"{spec.multiple}. neurenix.vision.pad_images(images, {spec.multiple}, {spec.fill:g}) fills them up."
    )
    return [Finding("size", True, message)]


def _advice(spec: DetectionInput) -> str:
    order = {"rgb": "red, green, blue", "bgr": "blue, green, red"}[spec.channel_order]
    values = "values 0..255 as float32" if spec.mean is None else f"(value / 255 - {spec.mean}) / {spec.std}"
    return f"the weights expect {values}, channels in the order {order}; model.preprocess makes them from images."
