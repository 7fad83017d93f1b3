"""Masks of whole images: a folder of images and one of masks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigurationError, EmptyDatasetError, InputMismatchError, NeurenixWarning, UnreadableSampleError
from ._dataset import Dataset, check_on_bad
from .boxed_images import file_below
from .image_files import EXTENSIONS, FORMATS, MAX_PIXELS, images_directly_in, open_image
from .manifest import check_regular

if TYPE_CHECKING:
    from PIL.Image import Image

IGNORED = 255  # the class number of pixels that losses and metrics leave out
_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")


@final
class MaskFolder(Dataset):
    """Images and masks with the same names. `dataset[i]` is (PIL image, (height, width) int64 class numbers).

    A mask is an image of one channel or with a palette whose numbers are the classes; 255 where none is known.

    root: holds the two folders. images, masks: their names; JPEGImages and SegmentationClass for Pascal VOC.
    classes: names in the order of their numbers; where they are given, other numbers than theirs are an error.
    names: which masks are used, without their endings; None for all.
    on_bad: what happens at an image or mask that cannot be read, that is missing, or that has another size than its
        partner: "raise", or "skip", then the loader leaves it out, counts and lists it.
    """

    ignore_index = IGNORED

    def __init__(
        self,
        root: str | os.PathLike[str],
        images: str = "images",
        masks: str = "masks",
        *,
        classes: Sequence[str] = (),
        names: Sequence[str] | None = None,
        on_bad: str = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.root = Path(root)
        folders = [self.root / images, self.root / masks]
        missing = [str(folder) for folder in folders if not folder.is_dir()]
        if missing:
            raise EmptyDatasetError(f"there is no folder {' and no '.join(missing)}; say images=… and masks=….")
        pictures, numbers = (_by_stem(folder) for folder in folders)
        if not numbers:
            raise EmptyDatasetError(f"{folders[1]} holds no mask ({', '.join(EXTENSIONS)}).")
        chosen = sorted(numbers) if names is None else list(names)
        if names is None:
            _report_unmasked(sorted(pictures.keys() - numbers.keys()), folders)
        self.paths = [os.fspath(pictures.get(name) or file_below(folders[0], f"{name}.jpg")) for name in chosen]
        self.mask_paths = [os.fspath(numbers.get(name) or file_below(folders[1], f"{name}.png")) for name in chosen]
        self.classes = [str(name) for name in classes]
        self.on_bad, self.max_pixels = check_on_bad(on_bad), max_pixels

    @property
    def targets(self) -> np.ndarray | None:
        """None: masks are read with their images."""
        return None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        image = open_image(self.paths[index], max_pixels=self.max_pixels)
        try:
            mask = read_mask(self.mask_paths[index], max_pixels=self.max_pixels)
        except InputMismatchError as error:
            raise UnreadableSampleError(str(error)) from error
        if mask.shape != (image.height, image.width):
            raise UnreadableSampleError(
                f"{self.paths[index]} has {image.width}x{image.height} pixels, and its mask "
                f"{self.mask_paths[index]} has {mask.shape[1]}x{mask.shape[0]}."
            )
        strange = mask[(mask != IGNORED) & (mask >= len(self.classes))] if self.classes else mask[:0]
        if strange.numel():
            raise UnreadableSampleError(
                f"{self.mask_paths[index]} has the class number {int(strange[0])}, and there are {len(self.classes)} "
                f"classes, 0 to {len(self.classes) - 1}; {IGNORED} stands for none."
            )
        return image, mask

    def sample_name(self, index: int) -> str:
        """The image's path."""
        return self.paths[index]


def read_mask(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """(height, width) int64 class numbers in an image file; raises UnreadableSampleError naming it.

    Raises InputMismatchError for colours.
    """
    from PIL import Image

    try:
        check_regular(path)
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise UnreadableSampleError(f"{path} has more than {max_pixels} pixels, which are not decoded.")
            return mask_numbers(image, str(path))
    except (InputMismatchError, UnreadableSampleError):
        raise
    except Exception as error:  # a decoder may raise anything at damaged bytes, and no code of the user's runs here
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error) or type(error).__name__
        raise UnreadableSampleError(f"{path} cannot be read as a mask: {reason}") from error


def mask_numbers(image: Image, name: str) -> Tensor:
    """(height, width) int64 class numbers of a PIL image; raises InputMismatchError for colours."""
    if image.mode not in _MODES:
        raise InputMismatchError(
            f"{name} of mode {image.mode} was given as a mask; colours are no class numbers. Save masks with one "
            "channel or a palette, one number a class."
        )
    return torch.from_numpy(np.array(image).astype(np.int64))


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in images_directly_in(folder, EXTENSIONS):
        if path.stem in found:
            raise ConfigurationError(
                f"{found[path.stem]} and {path.name} have one name, so it is open which of them belongs to the other "
                "folder's; keep one."
            )
        found[path.stem] = path
    return found


def _report_unmasked(names: Sequence[str], folders: Sequence[Path]) -> None:
    if names:
        warnings.warn(
            f"{len(names)} images of {folders[0]} have no mask in {folders[1]} ({names[0]}, …) and are left out.",
            NeurenixWarning,
            stacklevel=4,
        )
