"""What datasets of images with boxes share: targets that are whole, checked against the image that they belong to."""

from __future__ import annotations

import abc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import EmptyDatasetError, UnreadableSampleError, UnsafeFileError
from ._dataset import Dataset, check_on_bad
from .image_files import open_image
from .object_masks import Outline, object_masks

MOST_OBJECTS = 10_000  # in one image; the fullest of Open Images has some hundreds
_SLACK = 1.0  # pixels that rounding may put a box beyond the image


@dataclass(frozen=True, kw_only=True)
class Objects:
    """What an image shows, as its annotation says.

    boxes: (k, 4) x1, y1, x2, y2, in pixels, or in shares of width and height if `relative`. labels: (k,) class numbers.
    outlines: for each object its polygons or its run lengths. size: (width, height) of the image, where it is stated.
    """

    boxes: Sequence[Sequence[float]]
    labels: Sequence[int]
    outlines: Sequence[Outline] | None = None
    size: tuple[int, int] | None = None
    relative: bool = False


class BoxedImages(Dataset):
    """Images with boxes. `dataset[i]` is (PIL image, {"boxes", "labels"[, "masks"]}). A subclass reads annotations.

    boxes: (k, 4) float32 x1, y1, x2, y2 in pixels. labels: (k,) int64, class numbers from 0. masks: (k, height, width)
    uint8, 0 and 1, with masks=True. An image without objects has k = 0.

    An image or an annotation that cannot be read, a box outside of its image or turned inside out, an unknown class: an
    UnreadableSampleError that names the sample, or with on_bad="skip" a sample that the loader leaves out, counts and
    lists. Boxes without area are left out, as published data sets have some.
    """

    upright = False

    def __init__(
        self, paths: Sequence[Path], classes: Sequence[str], *, masks: bool, on_bad: str, max_pixels: int
    ) -> None:
        if not paths:
            raise EmptyDatasetError(f"{type(self).__name__} found no image.")
        self.paths = [os.fspath(path) for path in paths]
        self.classes = [str(name) for name in classes]
        self.masks, self.max_pixels = masks, max_pixels
        self.on_bad = check_on_bad(on_bad)

    @abc.abstractmethod
    def objects(self, index: int) -> Objects:
        """What one image shows. Raises UnreadableSampleError where its annotation cannot be used."""

    @property
    def targets(self) -> np.ndarray | None:
        """None: boxes are no table of numbers."""
        return None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Tensor]]:
        objects = self.objects(index)
        image = open_image(self.paths[index], max_pixels=self.max_pixels, upright=self.upright)
        try:
            return image, target_of(objects, image.size, len(self.classes), self.masks)
        except UnreadableSampleError as error:
            raise UnreadableSampleError(f"{self.sample_name(index)}: {error}") from error

    def sample_name(self, index: int) -> str:
        """The image's path."""
        return self.paths[index]


def target_of(objects: Objects, size: tuple[int, int], classes: int, masks: bool) -> dict[str, Tensor]:
    """The target of an image of `size` (width, height); raises UnreadableSampleError for what cannot be in it."""
    if objects.size not in (None, size):
        raise UnreadableSampleError(
            f"the image has {_times(size)} pixels, and its annotation says {_times(objects.size)}."
        )
    if len(objects.labels) > MOST_OBJECTS:
        raise UnreadableSampleError(f"{len(objects.labels)} objects in one image; up to {MOST_OBJECTS} are read.")
    unknown = [label for label in objects.labels if not 0 <= label < classes]
    if unknown:
        raise UnreadableSampleError(f"an object has class number {unknown[0]}, and there are {classes} classes.")
    boxes = np.asarray(objects.boxes, dtype=np.float64).reshape(-1, 4)
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        boxes = _checked(boxes * np.tile(size, 2) if objects.relative else boxes, size)
    kept = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1)).tolist()
    target = {
        "boxes": torch.from_numpy(boxes[kept].astype(np.float32)),
        "labels": torch.tensor([objects.labels[place] for place in kept], dtype=torch.int64),
    }
    if masks:
        if objects.outlines is None:
            raise UnreadableSampleError("masks=True, and the annotation has boxes alone.")
        scale = size if objects.relative else (1, 1)
        target["masks"] = object_masks([objects.outlines[place] for place in kept], size, scale)
    return target


def _checked(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes within the image; raises where one reaches further than rounding explains, or is inside out."""
    for number, (left, top, right, bottom) in enumerate(boxes):
        shown = f"box {number} from ({left:.6g}, {top:.6g}) to ({right:.6g}, {bottom:.6g})"
        if not np.isfinite(boxes[number]).all():
            raise UnreadableSampleError(f"{shown} is no box.")
        if right < left or bottom < top:
            raise UnreadableSampleError(f"{shown} is inside out: x1 <= x2 and y1 <= y2 are needed.")
        if min(left, top) < -_SLACK or right > size[0] + _SLACK or bottom > size[1] + _SLACK:
            raise UnreadableSampleError(f"{shown} reaches out of the image, which has {_times(size)} pixels.")
    clipped: np.ndarray = np.clip(boxes, 0, np.tile(size, 2))
    return clipped


def _times(size: tuple[int, int] | None) -> str:
    return "x".join(map(str, size or ()))


def file_below(folder: Path, name: str) -> Path:
    """The path of a file that an annotation names; raises UnsafeFileError where it leaves the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name or ":" in path.parts[0]:
        raise UnsafeFileError(f"{name[:80]!r} points outside of {folder}; only files below it are read.")
    return folder / path
