"""Tables (CSV, Parquet, pandas) and Hugging Face datasets with a column of paths, images or texts."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from ..errors import (
    ConfigurationError,
    EmptyDatasetError,
    NeurenixError,
    SkippedSamplesWarning,
    UnknownNameError,
    UnreadableSampleError,
    UnsafeFileError,
)
from ..packages import require
from ..storage import inside
from ._batch import Skipped
from ._dataset import Dataset, OnBad, check_on_bad, encode_labels, target_at
from .audio_files import SOUNDS, AudioFiles
from .csv_rows import read_csv
from .image_files import EXTENSIONS, ImageFiles, to_rgb
from .in_memory import TextDataset
from .manifest import DataManifest

IMAGE_COLUMNS = ("image", "img", "path", "image_path", "file", "filename", "file_name", "file_path")
SOUND_COLUMNS = ("audio", "sound", "audio_path", "wav")
TEXT_COLUMNS = ("text", "sentence", "content", "review", "document")
KINDS = ("image", "sound", "text")
TARGET_COLUMNS = ("label", "labels", "target", "class", "category", "score", "rating")


@final
class TableDataset(Dataset):
    """Rows of a table with a path or text column. `dataset[i]` is (raw sample or transform's result, target).

    A raw sample is a PIL image, (samples, rate) of a sound, or a text.

    table: a .csv or .parquet file, or a pandas frame.
    input, target: column names; guessed where exactly one column has a usual name ("path", "text", "label").
        Several target columns (a list) give several outputs; their names are the classes.
    root: folder that paths are relative to; by default the table's own. No path may leave it.
    kind: "image", "sound" or "text"; by default what the first value ends like a file of, else texts.
    on_bad: "skip" leaves out what cannot be read: rows of a .csv file that are damaged and rows without a target,
        which left_out lists, and images, sounds and texts as they are met.
    verify: compare the table's file and the files in it with what write_data_manifest saw.
    Targets: names become classes in sorted order, whole numbers are class numbers, reals are regression.
    """

    def __init__(
        self,
        table: Any,
        input: str | None = None,
        target: str | Sequence[str] | None = None,
        *,
        root: str | os.PathLike[str] | None = None,
        kind: str | None = None,
        transform: Callable[[Any], Any] | None = None,
        on_bad: str = "raise",
        verify: bool = False,
    ) -> None:
        self.on_bad: OnBad = check_on_bad(on_bad)
        file = Path(table) if isinstance(table, (str, os.PathLike)) else None
        self._source = file.name if file else "table"
        folder = Path(root) if root is not None else file.parent if file else None
        frame, numbers, damaged = read_table(
            table, skip=self.on_bad == "skip", manifest=DataManifest.of(file.parent) if verify and file else None
        )
        self.columns = [str(column) for column in frame.columns]
        input = _column(frame.columns, input, IMAGE_COLUMNS + SOUND_COLUMNS + TEXT_COLUMNS, "input")
        frame, self._numbers, aimless = self._with_targets(frame, _target_columns(frame, target, input), numbers)
        self.left_out = tuple(sorted([*damaged, *aimless], key=lambda row: row.index))
        values = frame[input].tolist()
        if not values:
            raise EmptyDatasetError("the table has no rows; at least one is needed.")
        self.kind = _kind(kind, values[0])
        self.transform = transform
        self._targets, self.classes = _table_targets(frame, target, input)
        self._rows = self._open(values, folder, verify)
        self._warn_of_left_out()

    def _with_targets(self, frame: Any, columns: list[Any], numbers: list[int]) -> tuple[Any, list[int], list[Skipped]]:
        """The rows that have all their targets, their numbers, and the others, under on_bad="skip"."""
        missing = frame[columns].isna().any(axis=1).to_numpy()
        if self.on_bad == "raise" or not missing.any():
            return frame, numbers, []
        names = [f"{self._source} row {number}" for number, none in zip(numbers, missing, strict=True) if none]
        bad = [Skipped(int(name.rpartition(" ")[2]), name, f"{name} has no target") for name in names]
        kept = [number for number, none in zip(numbers, missing, strict=True) if not none]
        frame = frame[~missing].copy()
        for column in columns:
            # an empty cell makes reals of a column of whole numbers: class numbers would become a regression
            if frame[column].dtype.kind == "f" and (frame[column] % 1 == 0).all():
                frame[column] = frame[column].astype("int64")
        return frame, kept, bad

    def _open(self, values: list[Any], root: Path | None, verify: bool) -> Dataset:
        if self.kind == "text":
            return TextDataset(values, on_bad=self.on_bad)
        files = ImageFiles if self.kind == "image" else AudioFiles
        if root is None:
            return files(_absolute(values), on_bad=self.on_bad, verify=verify)
        paths = [_row_path(root, value, row) for row, value in zip(self._numbers, values, strict=True)]
        return files(paths, on_bad=self.on_bad, verify=DataManifest.of(root) if verify else False)

    def _warn_of_left_out(self) -> None:
        if self.left_out:
            shown = "; ".join(row.reason for row in self.left_out[:3])
            warnings.warn(
                f"{len(self.left_out)} rows of {self._source} were left out: {shown}. The dataset's left_out lists "
                "them all.",
                SkippedSamplesWarning,
                stacklevel=3,
            )

    @property
    def targets(self) -> np.ndarray | None:
        """Class numbers or values, one per row."""
        return self._targets

    @property
    def lengths(self) -> np.ndarray | None:
        """(n,) milliseconds of each sound; None of images and texts."""
        return self._rows.lengths if isinstance(self._rows, AudioFiles) else None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        sample = self._rows[index][0]
        return sample if self.transform is None else self.transform(sample), target_at(self._targets, index)

    def sample_name(self, index: int) -> str:
        """The image's path; the table and row of a text."""
        return self._rows.sample_name(index) if self.kind == "image" else f"{self._source} row {self._numbers[index]}"


@final
class HuggingFaceDataset(Dataset):
    """A map-style dataset of the `datasets` library. `dataset[i]` is (PIL image, text or value, target).

    input, target: column names; guessed where they are unambiguous (the only image column, "text", "label").
    classes: the names of a ClassLabel column, or the sorted names in a column of strings.
    """

    def __init__(
        self,
        dataset: Any,
        input: str | None = None,
        target: str | None = None,
        *,
        transform: Callable[[Any], Any] | None = None,
        on_bad: str = "raise",
    ) -> None:
        if not hasattr(dataset, "column_names") or not hasattr(dataset, "features") or not hasattr(dataset, "__len__"):
            raise ConfigurationError(_not_one_split(dataset))
        self.dataset, self.transform, self.on_bad = dataset, transform, check_on_bad(on_bad)
        features = dataset.features
        images = tuple(name for name, feature in features.items() if type(feature).__name__ == "Image")
        self.input = _column(features, input, images or IMAGE_COLUMNS + TEXT_COLUMNS, "input")
        labels = tuple(name for name, feature in features.items() if type(feature).__name__ == "ClassLabel")
        self.target = _column(features, target, labels or TARGET_COLUMNS, "target", optional=True)
        self._targets, self.classes = self._read_targets()

    def _read_targets(self) -> tuple[np.ndarray | None, list[str]]:
        if self.target is None:
            return None, []
        values = self.dataset.with_format(None).select_columns([self.target])[:][self.target]
        names = getattr(self.dataset.features[self.target], "names", None)
        numbers, classes = encode_labels(values, None, what=f"column {self.target!r}")
        return numbers, list(names) if names else classes

    @property
    def targets(self) -> np.ndarray | None:
        """Class numbers or values, one per row."""
        return self._targets

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        try:
            sample = self.dataset[index][self.input]
        except (OSError, SyntaxError) as error:  # what Pillow raises for broken files
            raise UnreadableSampleError(f"{self.sample_name(index)} cannot be read: {error}") from error
        if sample is None:
            raise UnreadableSampleError(f"{self.sample_name(index)} has nothing in column {self.input!r}.")
        if type(sample).__module__.startswith("PIL."):
            sample = to_rgb(sample)
        return sample if self.transform is None else self.transform(sample), target_at(self._targets, index)

    def sample_name(self, index: int) -> str:
        """The sample's row."""
        return f"row {index}"


def read_table(
    table: Any, *, skip: bool = False, manifest: DataManifest | None = None
) -> tuple[Any, list[int], list[Skipped]]:
    """(pandas frame, the number of each of its rows in the table, rows left out) of a file or of a frame.

    skip: leave damaged rows of a .csv file out. manifest: what the file has to be.
    """
    pandas = require("pandas", purpose="reading tables")
    if isinstance(table, pandas.DataFrame):
        return table, list(range(len(table))), []
    path = Path(table)
    if not path.is_file():
        raise EmptyDatasetError(f"{path} does not exist; give a .csv or .parquet file or a pandas frame.")
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise ConfigurationError(f"{path} is no table that is read here; possible: .csv, .parquet, a pandas frame.")
    content = path.read_bytes() if manifest is None else manifest.read(path)
    try:
        if path.suffix.lower() == ".csv":
            return read_csv(path, content, skip=skip)
        frame = pandas.read_parquet(io.BytesIO(content))
    except NeurenixError:
        raise
    except Exception as error:  # a reader may raise anything at damaged bytes, and no code of the user's runs here
        raise EmptyDatasetError(f"{path} cannot be read as a table: {error}") from error
    return frame, list(range(len(frame))), []


def _column(columns: Any, name: str | None, usual: Sequence[str], what: str, *, optional: bool = False) -> Any:
    known = [str(column) for column in columns]
    if name is not None:
        if name not in known:
            raise UnknownNameError("column", name, known)
        return name
    found = [column for column in known if column.lower() in usual or column in usual]
    if len(found) == 1:
        return found[0]
    if optional and not found:
        return None
    reason = f"several could be meant: {', '.join(found)}" if found else f"none has a usual name ({', '.join(usual)})"
    raise ConfigurationError(f"which column is the {what}? {reason}. Name it: {what}=…; columns: {', '.join(known)}.")


def _target_columns(frame: Any, target: Any, input: str) -> list[Any]:
    """The names of the columns that hold targets."""
    if target is None or isinstance(target, str):
        others = [column for column in frame.columns if column != input]
        name = _column(others, target, TARGET_COLUMNS, "target", optional=True)
        return [] if name is None else [name]
    return [_column(frame.columns, name, (), "target") for name in target]


def _table_targets(frame: Any, target: Any, input: str) -> tuple[np.ndarray | None, list[str]]:
    if target is None or isinstance(target, str):
        others = [column for column in frame.columns if column != input]
        target = _column(others, target, TARGET_COLUMNS, "target", optional=True)
        return (None, []) if target is None else encode_labels(_values(frame[target]), what=f"column {target!r}")
    names = [_column(frame.columns, name, (), "target") for name in target]
    columns = [encode_labels(_values(frame[name]), what=f"column {name!r}") for name in names]
    worded = [name for name, (_, classes) in zip(names, columns, strict=True) if classes]
    if worded:
        raise ConfigurationError(f"several target columns have to hold numbers; {', '.join(worded)} holds words.")
    return np.stack([numbers for numbers, _ in columns], axis=1).astype(np.float32), names


def _values(series: Any) -> Any:
    # pandas has several missing values; None is what all else understands
    return (
        series.to_numpy()
        if series.dtype.kind in "iufb" and not series.hasnans
        else [None if missing else value for value, missing in zip(series.tolist(), series.isna(), strict=True)]
    )


def _kind(kind: str | None, first: Any) -> str:
    if kind is None:
        ending = first.lower() if isinstance(first, str) else ""
        return "image" if ending.endswith(EXTENSIONS) else "sound" if ending.endswith(SOUNDS) else "text"
    if kind not in KINDS:
        raise ConfigurationError(f"kind={kind!r}; possible: 'image' and 'sound' (columns of paths), 'text'.")
    return kind


def _row_path(root: Path, value: Any, row: int) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        return root / f"(row {row} holds no path)"  # reading it raises, or is skipped, as any missing file
    try:
        return inside(root, value)
    except UnsafeFileError as error:
        raise UnsafeFileError(
            f"row {row}: {error} Where they lie in another folder, name it: TableDataset(table, root=FOLDER)."
        ) from None


def _absolute(values: Sequence[Any]) -> list[str]:
    """Paths in a frame that the caller has built, and so vouches for."""
    for value in values:
        if not isinstance(value, str) or not os.path.isabs(value):
            raise ConfigurationError(
                f"a frame of paths such as {value!r} needs root=, the folder that they are relative to: "
                "TableDataset(frame, root=FOLDER); absolute paths need none."
            )
    return list(values)


def _not_one_split(dataset: Any) -> str:
    if isinstance(dataset, dict):
        splits = ", ".join(map(str, dataset))
        return f"this is a dictionary of splits ({splits}); pass one, such as data['train']."
    return (
        f"{type(dataset).__name__} cannot be read by position, so it cannot be shuffled exactly or resumed; "
        "load it without streaming=True, or save it and load it again."
    )
