"""Boxes and outlines as YOLO's tools write them: a text file for each image, and a data.yaml for all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from ..errors import ConfigurationError, DamagedFileError, EmptyDatasetError, UnreadableSampleError
from ..packages import require
from .boxed_images import BoxedImages, Objects, file_below
from .image_files import EXTENSIONS, MAX_PIXELS, images_directly_in

_LARGEST_YAML, _LARGEST_LABELS = 1 << 20, 16 << 20  # bytes
_DEEPEST = 20
_ADVICE = "It needs names (of the classes) and folders of images: train, val, test."


@final
class YoloDataset(BoxedImages):
    """The images of one part of a data.yaml with the objects of its text files; see BoxedImages for samples.

    The text file of images/…/x.jpg is labels/…/x.txt. A line is a class number and x, y (of the centre), width, height,
    or the points x, y, … of an outline, all in shares of the image's width and height. An image without a file shows
    nothing of interest.

    description: the data.yaml. part: "train", "val" or "test".
    root: what the paths in it start from and have to lie in; by default the folder of data.yaml, or `path` below it.
    masks: draw outlines; needs the extra neurenix[detection] and outlines for all objects.
    on_bad: see BoxedImages. A data.yaml that cannot be used raises DamagedFileError.
    """

    upright = True  # the tools turn images by their EXIF data before boxes are drawn

    def __init__(
        self,
        description: str | os.PathLike[str],
        part: str = "train",
        *,
        root: str | os.PathLike[str] | None = None,
        masks: bool = False,
        on_bad: str = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.file = Path(description)
        content = _read_yaml(self.file)
        if part not in content:
            known = [name for name in ("train", "val", "test") if name in content]
            raise ConfigurationError(f"part={part!r}; {self.file} has {', '.join(known) or 'none'}.")
        folder = _root(self.file, content) if root is None else Path(root)
        places = content[part] if isinstance(content[part], list) else [content[part]]
        paths = [path for place in places for path in _images(self.file, folder, place)]
        super().__init__(paths, _names(self.file, content), masks=masks, on_bad=on_bad, max_pixels=max_pixels)
        self._labels = [_labels_of(path) for path in paths]
        if not any(path.is_file() for path in self._labels):
            raise EmptyDatasetError(f"none of the {len(paths)} images has a text file, such as {self._labels[0]}.")

    def objects(self, index: int) -> Objects:
        """Boxes, class numbers and outlines of one image, in shares of its size."""
        file = self._labels[index]
        try:
            if not file.exists():
                return Objects(boxes=[], labels=[], outlines=[], relative=True)
            if file.stat().st_size > _LARGEST_LABELS:
                raise UnreadableSampleError(f"{file} has more than {_LARGEST_LABELS >> 20} MiB.")
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UnreadableSampleError(f"{self.sample_name(index)}: {file} cannot be read ({error}).") from error
        found = [_line(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]
        outlines = [outline for _, _, outline in found]
        if self.masks and not all(outlines):
            raise UnreadableSampleError(
                f"{self.sample_name(index)}: masks=True, and {file} has boxes without outlines."
            )
        return Objects(
            boxes=[box for _, box, _ in found],
            labels=[label for label, _, _ in found],
            outlines=outlines if self.masks else None,
            relative=True,
        )


def _line(file: Path, number: int, line: str) -> tuple[int, list[float], list[list[float]]]:
    """(class number, box, its outline or nothing) of one line."""
    fields = line.split()
    try:
        label, values = int(fields[0]), [float(field) for field in fields[1:]]
    except ValueError:
        raise UnreadableSampleError(f"{file} line {number}: {line[:60]!r} holds something that is no number.") from None
    if len(values) == 4:
        x, y, width, height = values
        return label, [x - width / 2, y - height / 2, x + width / 2, y + height / 2], []
    if len(values) < 6 or len(values) % 2:
        raise UnreadableSampleError(
            f"{file} line {number} has {len(values)} numbers behind the class; a box has four, an outline three points."
        )
    across, down = values[::2], values[1::2]
    return label, [min(across), min(down), max(across), max(down)], [values]


def _read_yaml(file: Path) -> Mapping[str, Any]:
    """A data.yaml as plain values; no object can be made by it, and nothing in it may stand for something else."""
    yaml = require("yaml", purpose="reading data.yaml", install="pyyaml")
    if not file.is_file():
        raise EmptyDatasetError(f"there is no file {file}; give the data.yaml of a YOLO data set.")
    try:
        if file.stat().st_size > _LARGEST_YAML:
            raise ValueError(f"it has more than {_LARGEST_YAML >> 20} MiB")
        text = file.read_text(encoding="utf-8")
        _check_plain(yaml, text)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DamagedFileError(f"{file} cannot be used: {' '.join(str(error).split())[:200]}. {_ADVICE}") from error
    if not isinstance(content, Mapping):
        raise DamagedFileError(f"{file} holds {type(content).__name__}. {_ADVICE}")
    return content


def _check_plain(yaml: Any, text: str) -> None:
    """Raise ValueError for what makes a small file take unbounded memory or time."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has aliases (*name), which can grow without bound")
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")


def _names(file: Path, content: Mapping[str, Any]) -> list[str]:
    """Class names in the order of their numbers, from a list or from number: name."""
    names = content.get("names")
    if isinstance(names, Mapping):
        names = [names.get(number) for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, (str, int)) for name in names):
        raise DamagedFileError(f"{file}: names is {str(content.get('names'))[:60]}, no list of class names from 0 on.")
    stated = content.get("nc", len(names))
    if stated != len(names) or len(set(map(str, names))) < len(names):
        raise DamagedFileError(
            f"{file} says nc: {str(stated)[:20]} and has {len(set(map(str, names)))} different names."
        )
    return [str(name) for name in names]


def _root(file: Path, content: Mapping[str, Any]) -> Path:
    stated = content.get("path") or "."
    if not isinstance(stated, str):
        raise DamagedFileError(f"{file}: path is {str(stated)[:60]}, no text.")
    return file.parent if Path(stated) == Path() else file_below(file.parent, stated)


def _images(file: Path, root: Path, place: Any) -> list[Path]:
    """Images of a folder, or those that a text file lists. ../ in front, as Roboflow writes it, means the root."""
    if not isinstance(place, str) or not place:
        raise DamagedFileError(f"{file}: {str(place)[:60]!r} names no folder of images.")
    path = file_below(root, place.removeprefix("../"))
    if path.is_file() and path.suffix == ".txt":
        lines = path.read_text(encoding="utf-8").splitlines()
        return [file_below(root, line.strip()) for line in lines if line.strip()]
    found = images_directly_in(path, EXTENSIONS) if path.is_dir() else []
    if not found:
        what = "holds no image" if path.is_dir() else "does not exist"
        raise EmptyDatasetError(
            f"{path} {what}; {file} names it. Give root=… where its paths start from another folder."
        )
    return found


def _labels_of(image: Path) -> Path:
    """…/images/…/x.jpg -> …/labels/…/x.txt: the last folder of that name is changed."""
    parts = list(image.with_suffix(".txt").parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts)
