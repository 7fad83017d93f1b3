"""Boxes as Pascal VOC writes them: an XML file for each image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, final
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ..errors import EmptyDatasetError, UnreadableSampleError
from .boxed_images import BoxedImages, Objects, file_below
from .image_files import EXTENSIONS, MAX_PIXELS, images_directly_in

_LARGEST = 16 << 20  # bytes of one XML file
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@final
class VocDataset(BoxedImages):
    """Images of JPEGImages with the objects of Annotations; see BoxedImages for samples.

    Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 2010. Pixels of VOC count from 1 and a box
    includes its last one, so its left and upper side move by one pixel. Masks of whole images: MaskFolder.

    root: the folder VOC2012 or one of its form.
    part: the images that ImageSets/Main/<part>.txt lists; None for all that have an annotation.
    classes: names in the order of their numbers; by default the sorted names in all annotations of the folder.
    difficult: whether objects that are marked as hard to recognise are kept.
    on_bad: see BoxedImages.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        part: str | None = None,
        *,
        classes: Sequence[str] | None = None,
        difficult: bool = False,
        on_bad: str = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.root, self.difficult = Path(root), difficult
        folder = self.root / "Annotations"
        files = sorted(folder.glob("*.xml")) if folder.is_dir() else []
        if not files:
            raise EmptyDatasetError(
                f"{folder} has no .xml file; VocDataset needs Annotations and JPEGImages in {root}."
            )
        stems = [file.stem for file in files] if part is None else _listed(self.root, part)
        read = {file.stem: _read(file) for file in (files if classes is None else _named(folder, stems))}
        self._annotations = [read.get(stem) or _read(file_below(folder, f"{stem}.xml")) for stem in stems]
        names = classes or sorted({entry.name for found in read.values() for entry in found.entries})
        images = _images(self.root / "JPEGImages")
        paths = [images.get(stem, self.root / "JPEGImages" / f"{stem}.jpg") for stem in stems]
        super().__init__(paths, names, masks=False, on_bad=on_bad, max_pixels=max_pixels)
        self._number = {name: number for number, name in enumerate(self.classes)}

    def objects(self, index: int) -> Objects:
        """Boxes and class numbers of one image."""
        found = self._annotations[index]
        if found.wrong:
            raise UnreadableSampleError(f"{self.sample_name(index)}: {found.wrong}")
        entries = [entry for entry in found.entries if self.difficult or not entry.difficult]
        unknown = [entry.name for entry in entries if entry.name not in self._number]
        if unknown:
            raise UnreadableSampleError(
                f"{self.sample_name(index)}: an object is a {unknown[0][:40]!r}, which is none of the classes: "
                f"{', '.join(self.classes[:8])}."
            )
        return Objects(
            boxes=[entry.box for entry in entries],
            labels=[self._number[entry.name] for entry in entries],
            size=found.size,
        )


@dataclass(frozen=True, kw_only=True)
class _Entry:
    name: str
    box: tuple[float, ...]
    difficult: bool


@dataclass(frozen=True, kw_only=True)
class _Annotation:
    """wrong: why the file cannot be used; empty for a good one."""

    entries: tuple[_Entry, ...] = ()
    size: tuple[int, int] | None = None
    wrong: str = ""


def _listed(root: Path, part: str) -> list[str]:
    file = file_below(root / "ImageSets" / "Main", f"{part}.txt")
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in file.parent.glob("*.txt"))[:8]) or "none"
        raise EmptyDatasetError(f"there is no {file}; parts of this folder: {known}.")
    return [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _named(folder: Path, stems: Sequence[str]) -> list[Path]:
    return [file_below(folder, f"{stem}.xml") for stem in stems]


def _images(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in images_directly_in(folder, EXTENSIONS)} if folder.is_dir() else {}


def _read(file: Path) -> _Annotation:
    try:
        if not file.is_file():
            raise UnreadableSampleError(f"there is no annotation {file}.")
        if file.stat().st_size > _LARGEST:
            raise UnreadableSampleError(f"{file} has more than {_LARGEST >> 20} MiB.")
        tree = parse_xml(file.read_bytes(), str(file))
        size = [_whole(tree.find("size"), side) for side in ("width", "height")]
        entries = tuple(_entry(element, file) for element in tree.iterfind("object"))
    except (UnreadableSampleError, OSError) as error:
        return _Annotation(wrong=str(error))
    return _Annotation(entries=entries, size=(size[0], size[1]) if size[0] and size[1] else None)


def _entry(element: Element, file: Path) -> _Entry:
    name, box = (element.findtext("name") or "").strip(), element.find("bndbox")
    try:
        sides = [float((box.findtext(side) if box is not None else None) or "") for side in _SIDES]
    except ValueError:
        sides = []
    if not name or not sides:
        raise UnreadableSampleError(f"{file} has an object without a name or without the four numbers of a bndbox.")
    box_from_zero = (sides[0] - 1, sides[1] - 1, sides[2], sides[3])
    return _Entry(name=name, box=box_from_zero, difficult=(element.findtext("difficult") or "").strip() == "1")


def _whole(element: Element | None, name: str) -> int:
    text = ((element.findtext(name) if element is not None else None) or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def parse_xml(content: bytes, name: str) -> Element:
    """The root of an XML document without a document type, so that nothing in it can stand for something else.

    Entities of one's own (which grow without bound) and external ones (which read other files) need a document type.
    Raises UnreadableSampleError.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*_: Any) -> NoReturn:
        raise UnreadableSampleError(f"{name} has a document type of its own, which annotations have no need of.")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
        return builder.close()
    except (expat.ExpatError, AssertionError, ValueError, LookupError) as error:
        raise UnreadableSampleError(f"{name} is no whole XML file ({error}).") from error
