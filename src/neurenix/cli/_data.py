"""From the data options to a training and a test dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..archives import is_archive, unpacked
from ..data import TableDataset, as_dataset, split
from ..demos import CLIPART_SPLITS, clipart_path
from ..errors import ConfigurationError

_TEST_FOLDERS = ("val", "valid", "validation", "test")
_TABLES = (".csv", ".parquet")


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
    if data is None:
        raise ConfigurationError("no data was given; --data takes a folder, an archive, a table, or the word clipart.")
    if data == "clipart":
        return tuple(as_dataset(clipart_path(name)) for name in CLIPART_SPLITS)
    folder = unpacked(Path(data)) if is_archive(Path(data)) and Path(data).is_file() else Path(data)
    train_path, val_path = _paths(folder, val)
    train = open_data(train_path, input, target, kind)
    if val_path is not None:
        return train, open_data(val_path, input, target, kind)
    print("no test data was given: a fifth of the samples is kept back for it.")
    return split(train, 0.2, seed)


def open_data(path: Path, input: str | None, target: str | None, kind: str | None) -> Any:
    """One folder or table as a dataset."""
    if path.suffix not in _TABLES:
        return as_dataset(path)
    table = TableDataset(path, input=input, target=target, kind=kind, root=path.parent)
    if table.targets is None:
        raise ConfigurationError(
            f"none of {path}'s columns has a usual name for answers; name them with --input and --target: "
            f"{', '.join(table.columns)}."
        )
    return table


def _paths(data: Path, val: str | None) -> tuple[Path, Path | None]:
    if val is not None:
        return data, Path(val)
    if not (data / "train").is_dir():
        return data, None
    return data / "train", next((data / name for name in _TEST_FOLDERS if (data / name).is_dir()), None)
