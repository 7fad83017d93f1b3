"""From an image and its mask to what a segmentation model reads, and from its answers back to the image's size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from ..data import PREPROCESSES, Dataset
from ..data.findings import report
from ..data.preparation import Prepared, pair
from ..errors import ConfigurationError, InputMismatchError
from ._input import ImageInput
from ._segmentation_input import SegmentationInput
from .guard import check_images
from .masks import IGNORED, as_mask
from .preprocess import as_image, is_raw_image

AUGMENTATIONS: Mapping[str, str] = {
    "none": "resized only, as in evaluation",
    "standard": "half to twice the size, mirrored half of the time, a random part cut out",
}


@final
@PREPROCESSES.register("segmentation")
@dataclass(frozen=True)
class SegmentationPreprocess:
    """One raw image -> {"images": (channels, height, width), "image_sizes": (2,), "original_sizes": (2,)}.

    A raw image is a PIL image, a path, or a uint8 array or tensor. image_sizes: (height, width) of what is no filling;
    original_sizes: of the raw image. With `together` its mask goes through the same resizing, cropping and mirroring,
    by the nearest pixel, so that class numbers stay class numbers; filling is 255, which losses and metrics leave out.
    Without augmentation this is what torchvision does in evaluation, bit by bit.
    spec: what the weights were trained on. augmentation: a key of vision.segmentation.AUGMENTATIONS.
    """

    reads: ClassVar[str] = "image"

    spec: SegmentationInput
    augmentation: str = "none"
    _augment: Callable[..., Any] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.augmentation not in AUGMENTATIONS:
            raise ConfigurationError(f"augmentation={self.augmentation!r}; possible: {', '.join(AUGMENTATIONS)}.")
        object.__setattr__(self, "_augment", None if self.augmentation == "none" else _augmentation(self.spec))

    def __call__(self, raw: Any) -> dict[str, Tensor]:
        """What the network reads of one raw image."""
        return self.together(raw, None)[0]

    def together(self, raw: Any, mask: Any) -> tuple[dict[str, Tensor], Tensor | None]:
        """The same for an image and its mask -> (inputs, (height, width) int64).

        mask: class numbers as a path, a PIL image of one channel or a palette, or whole numbers (height, width).
        Raises InputMismatchError for a mask of another size than its image, or one that holds no class numbers.
        """
        image = as_image(raw, {1: "L", 3: "RGB"}[self.spec.channels])
        classes = None if mask is None else as_mask(mask)
        if classes is not None and tuple(classes.shape) != image.size[::-1]:
            raise InputMismatchError(
                f"an image of {image.size[1]} x {image.size[0]} pixels came with a mask of "
                f"{' x '.join(map(str, classes.shape))}; each pixel of the image needs its class."
            )
        planes, classes = self._resized(image, classes)
        size = torch.tensor(planes.shape[1:])
        planes = self._filled(self._normalised(planes.float().div_(255)), 0)
        inputs = {"images": planes, "image_sizes": size, "original_sizes": torch.tensor(image.size[::-1])}
        return inputs, None if classes is None else self._filled(classes.long(), IGNORED)

    def accepts(self, raw: Any) -> bool:
        """Whether `raw` still has to be preprocessed: True for PIL images, paths and uint8 images."""
        return is_raw_image(raw)

    def for_training(self, augmentation: str = "standard") -> SegmentationPreprocess:
        """The same preprocessing with a random augmentation."""
        return SegmentationPreprocess(self.spec, augmentation)

    def wrap(self, dataset: Any, training: bool) -> Dataset:
        """`dataset` of (image, mask) as one of ready samples; for training augmented, if not chosen yet."""
        augment = training and self.augmentation == "none"
        return SegmentationDataset(dataset, self.for_training() if augment else self)

    def check(self, inputs: Any) -> None:
        """Raise InputMismatchError or warn when a batch is not what the weights expect."""
        images = inputs["images"] if isinstance(inputs, Mapping) and "images" in inputs else inputs
        whole = isinstance(images, Tensor) and images.ndim == 4 and images.shape[1] == self.spec.channels
        if self.spec.mean is None and whole:
            return  # of images that are scaled by their own numbers any scale can be right
        size = (int(images.shape[2]), int(images.shape[3])) if whole else (1, 1)
        channels = self.spec.channels
        mean, std = self.spec.mean or (0.0,) * channels, self.spec.std or (1.0,) * channels
        report(check_images(images, ImageInput(size=size, mean=mean, std=std)))

    def restore(self, outputs: Tensor, inputs: Any) -> list[Tensor]:
        """A model's answers (n, classes, h, w) as masks (height, width) int64 of the raw images' sizes.

        Of several classes the one with the largest score; of one where its logit is above 0. Answers to tensors that
        came ready keep their size.
        """
        scores = original_scores(outputs, inputs) if isinstance(inputs, Mapping) else list(outputs)
        return [answer.argmax(0) if len(answer) > 1 else (answer[0] > 0).long() for answer in scores]

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON values."""
        spec = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.spec).items()}
        return {"kind": "segmentation", "augmentation": self.augmentation, **spec}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path | None = None) -> SegmentationPreprocess:
        """What to_json described. folder: where a saved model lies; images need nothing from it."""
        spec: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if name not in ("kind", "augmentation")
        }
        return cls(SegmentationInput(**spec), values["augmentation"])

    def _resized(self, image: Any, classes: Tensor | None) -> tuple[Tensor, Tensor | None]:
        from torchvision import tv_tensors
        from torchvision.transforms import InterpolationMode, v2

        mask = None if classes is None else tv_tensors.Mask(classes[None])
        size = self.spec.size
        if self._augment is not None:
            image = v2.functional.to_image(image)
            image, mask = (self._augment(image), None) if mask is None else self._augment(image, mask)
        elif size is not None:
            mode = InterpolationMode(self.spec.interpolation)
            sides = [size] if isinstance(size, int) else list(size)
            # resized by PIL, whose last bits are those of the published results
            image = v2.functional.resize(image, sides, interpolation=mode)
            mask = None if mask is None else v2.functional.resize(mask, sides)
        planes = image if isinstance(image, Tensor) else v2.functional.pil_to_tensor(image)
        return planes.as_subclass(Tensor), None if mask is None else mask.as_subclass(Tensor)[0]

    def _normalised(self, planes: Tensor) -> Tensor:
        if self.spec.mean is None or self.spec.std is None:
            std, mean = torch.std_mean(planes, dim=(1, 2), correction=0, keepdim=True)
            return (planes - mean) / std.clamp(min=1e-6)  # an even image becomes 0
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.spec.mean, self.spec.std))
        return planes.sub_(mean).div_(std)

    def _filled(self, pixels: Tensor, value: int) -> Tensor:
        """(…, h, w) with `value` added on the right and below, so that the divisor divides both."""
        right, below = (-side % self.spec.divisor for side in (pixels.shape[-1], pixels.shape[-2]))
        return torch.nn.functional.pad(pixels, (0, right, 0, below), value=value)


@final
class SegmentationDataset(Prepared):
    """`dataset` of (image, mask) pairs made ready; image and mask are transformed together.

    `collate` fills up the images of a batch to the size of its largest.
    """

    def __init__(self, dataset: Any, preprocess: SegmentationPreprocess) -> None:
        super().__init__(dataset)
        self.preprocess = preprocess

    @property
    def targets(self) -> np.ndarray | None:
        """None: a mask is no label of its sample, and cannot be known without reading it."""
        return None

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor | None]:
        raw, mask = pair(self.dataset[index])
        return self.preprocess.together(raw, mask)

    def collate(self, samples: list[tuple[dict[str, Tensor], Any]]) -> tuple[dict[str, Tensor], Tensor | None]:
        """A batch: images (n, c, h, w) filled up with 0, masks (n, h, w) with 255; sizes (n, 2)."""
        inputs = {
            "images": _stacked([inputs["images"] for inputs, _ in samples], 0),
            **{
                name: torch.stack([inputs[name] for inputs, _ in samples]) for name in ("image_sizes", "original_sizes")
            },
        }
        masks = [mask for _, mask in samples if mask is not None]
        return inputs, _stacked(masks, IGNORED) if masks else None


def original_scores(scores: Tensor, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """A model's answers (n, classes, h, w) at the size of the raw images: (classes, height, width) for each.

    inputs: what the model read, with image_sizes and original_sizes. The filling is cut off and the rest resized
    bilinearly; `.argmax(0)` of one gives its mask.
    """
    resized = []
    sizes = zip(inputs["image_sizes"].tolist(), inputs["original_sizes"].tolist(), strict=True)
    for answer, ((height, width), original) in zip(scores, sizes, strict=True):
        seen = answer[None, :, :height, :width]
        resized.append(torch.nn.functional.interpolate(seen, original, mode="bilinear", align_corners=False)[0])
    return resized


def _stacked(tensors: Sequence[Tensor], value: int) -> Tensor:
    """(…, h, w) of any sizes -> (n, …, largest h, largest w)."""
    high, wide = (max(tensor.shape[side] for tensor in tensors) for side in (-2, -1))
    pad = torch.nn.functional.pad
    return torch.stack([pad(x, (0, wide - x.shape[-1], 0, high - x.shape[-2]), value=value) for x in tensors])


def _augmentation(spec: SegmentationInput) -> Callable[..., Any]:
    from torchvision import tv_tensors
    from torchvision.transforms import InterpolationMode, v2

    mode = InterpolationMode(spec.interpolation)
    mirror = v2.RandomHorizontalFlip()
    if isinstance(spec.size, tuple):
        return v2.Compose([v2.RandomResizedCrop(spec.size, scale=(0.5, 1.0), interpolation=mode), mirror])
    if spec.size is None:
        return v2.Compose([mirror, functools.partial(_part, spec.crop)])
    cut = v2.RandomCrop(spec.crop, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: IGNORED})
    return v2.Compose([v2.RandomResize(spec.size // 2, spec.size * 2, interpolation=mode), mirror, cut])


def _part(crop: tuple[int, int], image: Tensor, *mask: Tensor) -> Any:
    """A random part of at most that size. What is smaller stays whole: filling it up would only cost time."""
    from torchvision.transforms import v2

    height, width = (min(side, most) for side, most in zip(image.shape[-2:], crop, strict=True))
    return v2.RandomCrop((height, width))(image, *mask)
