"""From the data options of the commands to datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ..archives import is_archive, unpacked
from ..data import TableDataset, as_dataset, split
from ..demos import clipart_path
from ..errors import ConfigurationError

_FOLDERS = {
    "train": ("train",),
    "val": ("val", "valid", "validation", "test"),
    "test": ("test", "val", "valid", "validation"),
}
_TABLES = (".csv", ".parquet")

Part = Literal["train", "val", "test"]


def datasets(
    data: str | None = None,
    val: str | None = None,
    input: str | None = None,
    target: str | None = None,
    kind: str | None = None,
    seed: int = 0,
) -> tuple[Any, Any]:
    """The training and the test data.

    Args:
        data: A folder with train/ and val/ (or test/) in it, a folder of class folders, a .zip or .tar of either, a
            CSV or Parquet table, or the word clipart for the pictures that come with neurenix.
        val: Test data of its own; without it a fifth of the training data is kept back.
        input: The column of a table that holds paths or texts.
        target: The column of a table that holds the answers.
        kind: What a table's input column holds: image (paths) or text; by default what its first value looks like.
        seed: Of the split.
    """
    train = part_of(data, "train", input, target, kind)
    if val is not None or _divided(_folder(data), "val") is not None:
        return train, part_of(data if val is None else val, "val", input, target, kind)
    print("no test data was given: a fifth of the samples is kept back for it.")
    return split(train, 0.2, seed)


def part_of(
    data: str | None, part: Part, input: str | None = None, target: str | None = None, kind: str | None = None
) -> Any:
    """One part of data in any spelling; data that is not divided, so without train/, is taken whole.

    Raises ConfigurationError where there is no data, no such part, or a table whose columns are not clear.
    """
    path = _folder(data)
    if (path / "train").is_dir():
        chosen = _divided(path, part)
        if chosen is None:
            raise ConfigurationError(
                f"{data} has train/ and none of {', '.join(f'{name}/' for name in _FOLDERS[part])}; to measure on what "
                f"was trained on, give {path / 'train'}."
            )
        path = chosen
    if path.suffix not in _TABLES:
        return as_dataset(path)
    table = TableDataset(path, input=input, target=target, kind=kind, root=path.parent)
    if table.targets is None:
        raise ConfigurationError(
            f"none of {path}'s columns has a usual name for answers; name them with --input and --target: "
            f"{', '.join(table.columns)}."
        )
    return table


def _folder(data: str | None) -> Path:
    """Where the data lies, unpacked if it is an archive."""
    if data is None:
        raise ConfigurationError("no data was given; --data takes a folder, an archive, a table, or the word clipart.")
    if data == "clipart":
        return clipart_path("train").parent
    path = Path(data)
    return unpacked(path) if is_archive(path) and path.is_file() else path


def _divided(folder: Path, part: Part) -> Path | None:
    """A part's folder, where the data has train/ and that part."""
    if not (folder / "train").is_dir():
        return None
    return next((folder / name for name in _FOLDERS[part] if (folder / name).is_dir()), None)
