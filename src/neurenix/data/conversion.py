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

from ..errors import ConfigurationError
from ._dataset import Dataset
from .image_files import EXTENSIONS, ImageFiles, ImageFolder
from .in_memory import ArrayDataset, ListDataset, TextDataset
from .tables import HuggingFaceDataset, TableDataset


def as_dataset(data: Any) -> Any:
    """A map-style dataset over any of:

    - a dataset of neurenix, a map-style torch Dataset, anything else with `len(d)` and `d[i]`: as it is;
    - an array or tensor (n, …); `(inputs, targets)`, inputs an array or a list; a list of `(input, target)`;
    - a list of texts, image paths or PIL images. Strings are image paths when every one of them ends like an
      image file and the first one exists; otherwise they are texts;
    - a path: a folder of class folders, or a .csv or .parquet table; a pandas frame; a Hugging Face dataset.
      Columns are guessed where they have usual names; TableDataset and HuggingFaceDataset take their names.

    Raises ConfigurationError for data that can only be read from start to end.
    """
    if isinstance(data, IterableDataset) or (hasattr(data, "__iter__") and not hasattr(data, "__len__")):
        raise ConfigurationError(
            f"{type(data).__name__} can only be read from start to end, so it cannot be shuffled exactly, "
            "split or resumed. Give a dataset with len(d) and d[i]; list(…) makes one of data that fits in "
            "memory."
        )
    if isinstance(data, TorchDataLoader):
        raise ConfigurationError("a DataLoader came where a dataset is expected; pass loader.dataset.")
    if isinstance(data, (np.ndarray, torch.Tensor)):
        return ArrayDataset(data)
    if isinstance(data, (str, os.PathLike)):
        return _from_path(Path(data))
    if isinstance(data, (tuple, list)):
        return _from_sequence(data)
    return _from_object(data)


def _from_path(path: Path) -> Dataset:
    if path.suffix.lower() in (".csv", ".parquet"):
        return TableDataset(path)
    return ImageFolder(path)


def _from_sequence(data: Sequence[Any]) -> Dataset:
    if isinstance(data, tuple) and len(data) == 2 and not any(isinstance(part, str) for part in data):
        return _from_inputs(data[0], data[1])
    if data and all(isinstance(sample, tuple) and len(sample) == 2 for sample in data):
        return _from_inputs([sample[0] for sample in data], [sample[1] for sample in data])
    return _from_inputs(data, None)


def _from_inputs(inputs: Any, targets: Any) -> Dataset:
    """A dataset of inputs (array, tensor or list) with targets or None."""
    if hasattr(inputs, "dtype") and not isinstance(inputs, torch.Tensor):
        inputs = np.asarray(inputs)  # a pandas column too
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "OUS":
        inputs = inputs.tolist()
    if isinstance(inputs, (np.ndarray, torch.Tensor)):
        return ArrayDataset(inputs, targets)
    if inputs and all(isinstance(sample, (str, os.PathLike)) for sample in inputs):
        return ImageFiles(inputs, targets) if _are_images(inputs) else TextDataset(inputs, targets)
    if inputs and all(isinstance(sample, (int, float)) or _is_numeric(sample) for sample in inputs):
        return ArrayDataset(np.asarray(inputs), targets)
    return ListDataset(inputs, targets)


def _are_images(paths: Sequence[Any]) -> bool:
    return all(os.fspath(path).lower().endswith(EXTENSIONS) for path in paths) and os.path.isfile(paths[0])


def _is_numeric(sample: Any) -> bool:
    return isinstance(sample, list) and bool(sample) and isinstance(sample[0], (int, float))


def _from_object(data: Any) -> Any:
    maker = type(data).__module__.split(".")[0]
    if maker == "pandas":
        return TableDataset(data)
    if maker == "datasets":
        return HuggingFaceDataset(data)
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
