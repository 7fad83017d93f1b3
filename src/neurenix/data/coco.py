"""Boxes and masks as COCO writes them: one JSON file for all images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from ..errors import DamagedFileError, EmptyDatasetError, UnreadableSampleError
from ..storage import read_json
from .boxed_images import BoxedImages, Objects, file_below
from .image_files import MAX_PIXELS
from .object_masks import are_numbers


@final
class CocoDataset(BoxedImages):
    """Images with the objects of a file such as instances_train2017.json; see BoxedImages for samples.

    Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014. Classes are the names of the file's categories in
    the order of their ids. Crowds (iscrowd) are left out.

    annotations: the JSON file. images: the folder that its file names lie in; by default the file's own.
    masks: draw each object's polygons or run lengths; needs the extra neurenix[detection].
    on_bad: see BoxedImages. A file that is no such file as a whole raises DamagedFileError.
    """

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str] | None = None,
        *,
        masks: bool = False,
        on_bad: str = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.file = Path(annotations)
        if not self.file.is_file():
            raise EmptyDatasetError(f"there is no file {self.file}; give COCO's JSON file of annotations.")
        folder = self.file.parent if images is None else Path(images)
        content = read_json(self.file)
        categories, entries, objects = (
            _entries(self.file, content, part) for part in ("categories", "images", "annotations")
        )
        names = _by_id(self.file, "category", categories, "name")
        self._number = {identity: number for number, identity in enumerate(sorted(names))}
        files = _by_id(self.file, "image", entries, "file_name")
        paths = [file_below(folder, name) for name in files.values()]
        super().__init__(paths, [names[key] for key in self._number], masks=masks, on_bad=on_bad, max_pixels=max_pixels)
        self._sizes = [(entry.get("width"), entry.get("height")) for entry in entries]
        self._objects = _of_each_image(self.file, list(files), objects, masks)

    def objects(self, index: int) -> Objects:
        """Boxes, class numbers and outlines of one image."""
        boxes, labels, outlines = [], [], []
        for category, box, outline in self._objects[index]:
            if category not in self._number:
                raise UnreadableSampleError(
                    f"{self.sample_name(index)}: an object is of category {category!r}, which {self.file} lacks."
                )
            if not are_numbers(box) or len(box) != 4:
                raise UnreadableSampleError(f"{self.sample_name(index)}: a bbox is {str(box)[:60]}, not 4 numbers.")
            left, top, width, height = (float(value) for value in box)
            boxes.append([left, top, left + width, top + height])
            labels.append(self._number[category])
            outlines.append(outline)
        stated = self._sizes[index]
        size = (stated[0], stated[1]) if isinstance(stated[0], int) and isinstance(stated[1], int) else None
        return Objects(boxes=boxes, labels=labels, outlines=outlines if self.masks else None, size=size)


def _entries(file: Path, content: Any, part: str) -> list[dict[str, Any]]:
    found = content.get(part) if isinstance(content, Mapping) else None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise DamagedFileError(
            f"{file} has no list of {part}; COCO's form is an object with images, annotations and categories."
        )
    return found


def _by_id(file: Path, what: str, entries: list[dict[str, Any]], name: str) -> dict[int, str]:
    """Id -> name of images or categories, in the order of the file."""
    found: dict[int, str] = {}
    for entry in entries:
        identity, text = entry.get("id"), entry.get(name)
        if type(identity) is not int or not isinstance(text, str) or not text or identity in found:
            raise DamagedFileError(f"{file}: the {what} {str(entry)[:80]} needs an id of its own and a {name}.")
        found[identity] = text
    if len(set(found.values())) < len(found):
        raise DamagedFileError(f"{file} has two entries with the same {name}.")
    return found


def _of_each_image(
    file: Path, images: list[int], objects: list[dict[str, Any]], masks: bool
) -> list[list[tuple[Any, Any, Any]]]:
    """(category, bbox, segmentation) of the objects of each image, without crowds."""
    place = {identity: number for number, identity in enumerate(images)}
    found: list[list[tuple[Any, Any, Any]]] = [[] for _ in images]
    for entry in objects:
        identity = entry.get("image_id")
        if type(identity) is not int or identity not in place:
            raise DamagedFileError(f"{file}: an annotation is of image {str(identity)[:40]}, which it does not list.")
        if not entry.get("iscrowd"):
            outline = entry.get("segmentation") if masks else None
            found[place[identity]].append((_category(entry.get("category_id")), entry.get("bbox"), outline))
    return found


def _category(value: Any) -> int | str:
    return value if type(value) is int else str(value)[:40]
