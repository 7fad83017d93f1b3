"""What a model is asked about: many samples, or one, which becomes a list of one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy
import torch

from ..audio.preprocess import has_rate
from ..data import SOUNDS, AudioFiles, AudioFolder, ImageFiles, ImageFolder, ListDataset, images_directly_in
from ..data.class_folders import files_directly_in
from ..errors import ConfigurationError

_TABLES = (".csv", ".parquet")


def many(data: Any, preprocess: Any) -> Any:
    """`data` as something that as_dataset reads as one or more samples.

    One image (path, PIL image, array (height, width, channels), tensor (channels, height, width)) and one text become
    lists of one. A folder of images without class folders becomes the list of these images. preprocess: the model's,
    which says what it reads; None for a module of the user's own.
    """
    match getattr(preprocess, "reads", None):
        case "text":
            return _texts(data)
        case "sound":
            return _sounds(data)
        case "music":
            return [os.fspath(data)] if isinstance(data, (str, os.PathLike)) else data
        case "video" | "table" | "series":
            return _one_as_list(data, preprocess)
        case "image":
            return _images(data, getattr(preprocess.spec, "channels", 3))
    return _from_path(data) if isinstance(data, (str, os.PathLike)) else data


def _one_as_list(data: Any, preprocess: Any) -> Any:
    """One video, row or series as a list of one; a pandas frame as its rows."""
    if hasattr(data, "to_dict") and hasattr(data, "columns"):
        return ListDataset(data.to_dict("records"))
    if isinstance(data, (numpy.ndarray, torch.Tensor)):
        if preprocess.reads == "series":  # (steps, channels); of one channel also (steps,)
            one = data.shape[1:] == (preprocess.channels,) or (data.ndim == 1 and preprocess.channels == 1)
        else:
            one = preprocess.accepts(data)
        return data[None] if one else data
    rows = isinstance(data, list) and bool(data) and preprocess.accepts(data[0])
    return ListDataset([data]) if not rows and not isinstance(data, tuple) and preprocess.accepts(data) else data


def _texts(data: Any) -> Any:
    if isinstance(data, str) and Path(data).suffix.lower() in _TABLES and Path(data).is_file():
        return data
    if isinstance(data, str):
        return [data]
    if _is_image(data) or (isinstance(data, (list, numpy.ndarray)) and len(data) and _is_image(data[0])):
        raise ConfigurationError("this is a text model, and images came; give a text, a list of texts or a table.")
    return data


def _sounds(data: Any) -> Any:
    """One sound (path, (samples, rate), samples (n,)) as a list of one; a folder of loose sounds as their list."""
    if isinstance(data, (str, os.PathLike)):
        place = Path(data)
        if not place.is_dir():
            return AudioFiles([place])
        loose = files_directly_in(place, SOUNDS)
        return AudioFiles(loose) if loose else AudioFolder(place)
    if isinstance(data, (list, numpy.ndarray)) and len(data) and isinstance(data[0], (str, os.PathLike)):
        return AudioFiles(list(data))
    is_samples = isinstance(data, (numpy.ndarray, torch.Tensor)) and data.ndim == 1
    return ListDataset([data]) if has_rate(data) or is_samples else data


def _images(data: Any, channels: int) -> Any:
    if isinstance(data, (str, os.PathLike)):
        return _from_path(data)
    if isinstance(data, (list, numpy.ndarray)) and len(data) and isinstance(data[0], (str, os.PathLike)):
        _check_paths([os.fspath(path) for path in data])
        return ImageFiles(list(data))
    if type(data).__module__.startswith("PIL."):
        return [data]
    if isinstance(data, (numpy.ndarray, torch.Tensor)) and is_one_image(data, channels):
        return data[None]
    return data


def is_one_image(data: numpy.ndarray | torch.Tensor, channels: int) -> bool:
    """Whether an array is one image for a model that reads `channels`, and not a batch.

    Grey images (n, height, width) are a batch; what has an axis of channels at either end is one image.
    """
    if data.ndim != 3:
        return data.ndim == 2 and str(data.dtype).endswith("uint8")
    if not str(data.dtype).endswith("uint8"):
        return True
    return data.shape[-1] in (1, 3, 4, channels) or (channels > 1 and data.shape[0] == channels)


def _from_path(path: str | os.PathLike[str]) -> Any:
    place = Path(path)
    if place.is_dir():
        return images_in(place)
    if place.suffix.lower() in _TABLES and place.is_file():
        return path
    _check_paths([os.fspath(path)])
    return ImageFiles([path])


def images_in(folder: str | os.PathLike[str]) -> ImageFiles | ImageFolder:
    """The images of a folder of class folders, or, where there are none of these, those directly in it."""
    folder = Path(folder)
    loose = images_directly_in(folder)
    if loose and not any(entry.is_dir() and not entry.name.startswith(".") for entry in folder.iterdir()):
        return ImageFiles(loose)
    return ImageFolder(folder)


def _check_paths(paths: list[str]) -> None:
    tables = [path for path in paths if path.lower().endswith(_TABLES)]
    if tables:
        raise ConfigurationError(f"{tables[0]} is a table among image files; give a table by itself.")
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise ConfigurationError(
            f"no such file: {', '.join(repr(path[:60]) for path in missing[:5])}. This model reads images; give their "
            "paths, a folder or the images themselves."
        )


def _is_image(value: Any) -> bool:
    array = isinstance(value, (numpy.ndarray, torch.Tensor)) and str(value.dtype).endswith("uint8")
    return array or type(value).__module__.startswith("PIL.")
