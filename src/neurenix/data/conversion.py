"""Whatever a user has as data, as a map-style dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset

from ..archives import is_archive, unpacked
from ..errors import ConfigurationError
from ._dataset import Dataset, OnBad, check_on_bad, innermost
from .audio_files import SOUNDS, AudioFiles, AudioFolder
from .class_folders import has_class_files
from .image_files import EXTENSIONS, ImageFiles, ImageFolder
from .in_memory import ArrayDataset, ListDataset, TextDataset
from .tables import HuggingFaceDataset, TableDataset


def as_dataset(data: Any, on_bad: str | None = None) -> Any:
    """A map-style dataset over any of:

    - a dataset of neurenix, a map-style torch Dataset, anything else with `len(d)` and `d[i]`: as it is;
    - an array or tensor (n, …); `(inputs, targets)`, inputs an array or a list; a list of `(input, target)`;
    - a list of texts, image paths or PIL images. Strings are image paths when every one of them ends like an
      image file and the first one exists; otherwise they are texts;
    - a path: a folder of class folders, a .zip or .tar of one, or a .csv or .parquet table; a pandas frame; a
      Hugging Face dataset. Columns are guessed where they have usual names; TableDataset and HuggingFaceDataset
      take their names.

    on_bad: "raise" or "skip", for a dataset that is made here; None is its default.
    Raises ConfigurationError for data that can only be read from start to end, and for an on_bad that contradicts
    the one of a dataset that came.
    """
    wanted = check_on_bad(on_bad or "raise")
    dataset = _as_dataset(data, wanted)
    if on_bad is not None and dataset is data and innermost(data, "on_bad", "raise") != wanted:
        raise ConfigurationError(
            f"on_bad={on_bad!r} came with a {type(data).__name__}, which is a dataset already; say it where the "
            "dataset is made, as ImageFolder(…, on_bad='skip') does, or give the dataset an attribute on_bad."
        )
    return dataset


def _as_dataset(data: Any, on_bad: OnBad) -> Any:
    if isinstance(data, IterableDataset) or (hasattr(data, "__iter__") and not hasattr(data, "__len__")):
        raise ConfigurationError(
            f"{type(data).__name__} can only be read from start to end, so it cannot be shuffled exactly, "
            "split or resumed. Give a dataset with len(d) and d[i]; list(…) makes one of data that fits in "
            "memory."
        )
    if isinstance(data, TorchDataLoader):
        raise ConfigurationError("a DataLoader came where a dataset is expected; pass loader.dataset.")
    if isinstance(data, np.ndarray) and data.ndim == 1 and all(isinstance(sample, str) for sample in data):
        return _from_inputs(data.tolist(), None, on_bad)
    if isinstance(data, (np.ndarray, torch.Tensor)):
        return ArrayDataset(data)
    if isinstance(data, (str, os.PathLike)):
        return _from_path(Path(data), on_bad)
    if isinstance(data, (tuple, list)):
        return _from_sequence(data, on_bad)
    return _from_object(data, on_bad)


def _from_path(path: Path, on_bad: OnBad) -> Dataset:
    if path.suffix.lower() in (".csv", ".parquet"):
        return TableDataset(path, on_bad=on_bad)
    if is_archive(path) and path.is_file():
        path = unpacked(path)
    if path.is_dir() and not has_class_files(path, EXTENSIONS) and has_class_files(path, SOUNDS):
        return AudioFolder(path, on_bad=on_bad)
    return ImageFolder(path, on_bad=on_bad)


def _from_sequence(data: Sequence[Any], on_bad: OnBad) -> Dataset:
    if isinstance(data, tuple) and len(data) == 2 and not any(isinstance(part, str) for part in data):
        return _from_inputs(data[0], data[1], on_bad)
    if data and all(isinstance(sample, tuple) and len(sample) == 2 for sample in data):
        return _from_inputs([sample[0] for sample in data], [sample[1] for sample in data], on_bad)
    return _from_inputs(data, None, on_bad)


def _from_inputs(inputs: Any, targets: Any, on_bad: OnBad) -> Dataset:
    """A dataset of inputs (array, tensor, list, pandas column or frame of numbers) with targets or None."""
    inputs, targets = _without_columns(inputs), _without_columns(targets)
    if hasattr(inputs, "dtype") and not isinstance(inputs, torch.Tensor):
        inputs = np.asarray(inputs)  # a pandas column too
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "OUS":
        inputs = inputs.tolist()
    if isinstance(inputs, (np.ndarray, torch.Tensor)):
        return ArrayDataset(inputs, targets)
    if inputs and all(isinstance(sample, (str, os.PathLike)) for sample in inputs):
        if _are_files(inputs, SOUNDS):
            return AudioFiles(inputs, targets, on_bad=on_bad)
        make = ImageFiles if _are_files(inputs, EXTENSIONS) else TextDataset
        return make(inputs, targets, on_bad=on_bad)
    if any(isinstance(sample, str) for sample in inputs) and all(_is_plain(sample) for sample in inputs):
        return TextDataset(inputs, targets, on_bad=on_bad)  # which names what is no text
    if inputs and all(isinstance(sample, (int, float)) or _is_numeric(sample) for sample in inputs):
        return ArrayDataset(np.asarray(inputs), targets)
    return ListDataset(inputs, targets, on_bad=on_bad)


def _without_columns(values: Any) -> Any:
    """A pandas frame as an array (n, columns), or (n,) where it has one column; all else as it is."""
    if type(values).__module__.split(".")[0] != "pandas" or not hasattr(values, "columns"):
        return values
    worded = [str(name) for name, kind in values.dtypes.items() if kind.kind not in "iufb"]
    if worded and values.shape[1] > 1:
        raise ConfigurationError(
            f"the frame's columns {', '.join(worded[:5])} hold no numbers; leave them out, or name what to read: "
            "TableDataset(frame, input=…, target=…)."
        )
    array = values.to_numpy()
    return array[:, 0] if worded else array


def _is_plain(sample: Any) -> bool:
    return sample is None or isinstance(sample, (str, int, float))


def _are_files(paths: Sequence[Any], extensions: tuple[str, ...]) -> bool:
    return all(os.fspath(path).lower().endswith(extensions) for path in paths) and os.path.isfile(paths[0])


def _is_numeric(sample: Any) -> bool:
    return isinstance(sample, list) and bool(sample) and isinstance(sample[0], (int, float))


def _from_object(data: Any, on_bad: OnBad) -> Any:
    maker = type(data).__module__.split(".")[0]
    if maker == "pandas":
        return TableDataset(data, on_bad=on_bad) if hasattr(data, "columns") else _from_inputs(data, None, on_bad)
    if maker == "datasets":
        return HuggingFaceDataset(data, on_bad=on_bad)
    if isinstance(data, TorchDataset) or hasattr(data, "__getitem__"):
        if isinstance(data, dict) or not hasattr(data, "__len__"):
            raise ConfigurationError(
                f"{type(data).__name__} is no dataset with len(d) and d[i]; give (inputs, targets) or a dataset."
            )
        return data
    raise ConfigurationError(
        f"{type(data).__name__} is nothing that can be read as data; possible: a dataset with len(d) and "
        "d[i], (inputs, targets), a list of texts, images or paths, a folder of class folders, a .csv or "
        ".parquet file, a pandas frame, a Hugging Face dataset."
    )
