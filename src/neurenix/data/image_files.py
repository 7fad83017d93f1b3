"""Image files: safe decoding, lists of files, folders of classes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ..errors import UnreadableSampleError
from .class_folders import LookedFor, files_directly_in, find_class_files
from .files import ClassFolders, Files
from .manifest import DataManifest, check_regular

if TYPE_CHECKING:
    from PIL.Image import Image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_LOOKED_FOR = LookedFor(dataset="ImageFolder", files="images", file="image", extensions=EXTENSIONS)
_ORIENTATION = 0x0112
MAX_PIXELS = 89_000_000  # 267 MB once decoded; Pillow itself warns from 89.5 million on


def open_image(
    path: str | os.PathLike[str],
    *,
    max_pixels: int = MAX_PIXELS,
    manifest: DataManifest | None = None,
    upright: bool = True,
) -> Image:
    """The image in a file as RGB, upright by its EXIF orientation, transparency on white.

    Only the formats of FORMATS are decoded, and only up to `max_pixels`, so that a small hostile file cannot
    fill the memory. manifest: what the file has to be; the bytes that are compared are those that are decoded.
    upright: False leaves the pixels as they are stored, as boxes and masks drawn on them need it.
    Raises UnreadableSampleError naming the file.
    """
    from PIL import Image

    try:
        check_regular(path)
        source = path if manifest is None else io.BytesIO(manifest.read(path))
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise UnreadableSampleError(
                    f"{path} has {image.width} x {image.height} pixels; more than {max_pixels} are not "
                    "decoded. Make it smaller, or raise max_pixels."
                )
            return to_rgb(image) if upright else _as_stored(image)
    except Exception as error:  # a decoder may raise anything at damaged bytes, and no code of the user's runs here
        if isinstance(error, UnreadableSampleError) and str(path) in str(error):
            raise
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error) or type(error).__name__
        raise UnreadableSampleError(f"{path} cannot be read as an image: {reason}") from error


def to_rgb(image: Image) -> Image:
    """An image of any mode as 8-bit RGB: upright, transparent pixels over white, 16-bit grey scaled to 8."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise UnreadableSampleError(f"an image of mode {image.mode!r} has no fixed range; store it with 8 or 16 bits.")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _as_stored(image: Image) -> Image:
    """The image as RGB in the order of its pixels, without the EXIF orientation that would turn it here or later."""
    image.load()
    image.getexif().pop(_ORIENTATION, None)
    image.info.pop("exif", None)
    return to_rgb(image)


@final
class ImageFiles(Files):
    """Images given by their paths, with or without targets. `dataset[i]` is (PIL image or transform's result, target).

    targets: class names, class numbers, reals, or several values per file; None for unlabelled data.
    classes: names in the order of their numbers; by default the sorted names in `targets`.
    verify: a file whose bytes are not those that write_data_manifest saw is unreadable. Found in the folder of all
        files or above; or a DataManifest.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        targets: Any = None,
        *,
        classes: Sequence[str] | None = None,
        transform: Callable[[Any], Any] | None = None,
        on_bad: str = "raise",
        max_pixels: int = MAX_PIXELS,
        verify: bool | DataManifest = False,
    ) -> None:
        super().__init__(paths, targets, classes, on_bad, verify)
        self.transform = transform
        self.max_pixels = max_pixels

    def _read(self, path: str) -> Any:
        image = open_image(path, max_pixels=self.max_pixels, manifest=self._manifest)
        return image if self.transform is None else self.transform(image)


@final
class ImageFolder(ClassFolders):
    """One folder per class, images anywhere below it. `dataset[i]` is (PIL image or transform's result, class number).

    root: the folder that holds the class folders; classes are their names, sorted. Hidden files are ignored.
    on_bad: "raise" stops at a file that cannot be decoded; "skip" lets the loader leave it out, count and
        list it.
    extensions: which files are images, by the end of their names, in any case.
    verify: compare each file with what write_data_manifest(root) saw. One that changed, came or went since then is
        an unreadable sample.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Callable[[Any], Any] | None = None,
        *,
        on_bad: str = "raise",
        extensions: Sequence[str] = EXTENSIONS,
        max_pixels: int = MAX_PIXELS,
        verify: bool = False,
    ) -> None:
        manifest = DataManifest.of(root) if verify else None
        classes, paths, targets = find_class_files(Path(root), _LOOKED_FOR.ending(extensions), manifest)
        files = ImageFiles(
            paths,
            targets,
            classes=classes,
            transform=transform,
            on_bad=on_bad,
            max_pixels=max_pixels,
            verify=manifest or False,
        )
        super().__init__(root, files)
        self._images = files

    @property
    def transform(self) -> Callable[[Any], Any] | None:
        """What is done to each PIL image; None leaves it as it is."""
        return self._images.transform


def images_directly_in(folder: Path, extensions: tuple[str, ...] = EXTENSIONS) -> list[Path]:
    """The image files of a folder itself, sorted; hidden ones and those in folders below are left out."""
    return files_directly_in(folder, extensions)
