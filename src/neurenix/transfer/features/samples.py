"""From what a caller holds (tensors, images, texts, datasets) to batches that a model reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, cast

import numpy
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from ...data import Batch, DataLoader, prepare
from ...data import as_dataset as dataset_from
from ...errors import ConfigurationError, EmptyDatasetError
from ...models._pretrained_model import PretrainedModel
from .taps import Inputs


def as_inputs(value: Any) -> Inputs | None:
    """The batch of tensors that `value` is: tensors, a mapping of tensors, a Batch, or an array of numbers;
    None for raw data. Arrays of bytes are raw, because images come as such.
    """
    if isinstance(value, Batch):
        return value.inputs
    if isinstance(value, Mapping):
        return {key: torch.as_tensor(item) for key, item in value.items()}
    if isinstance(value, numpy.ndarray) and value.dtype.kind in "fib" and value.dtype != numpy.uint8:
        return torch.as_tensor(value)
    return value if isinstance(value, Tensor) else None


def as_dataset(value: Any) -> Any:
    """A dataset of what `value` holds: itself, samples of a list, or one raw sample."""
    if isinstance(value, (str, Path)) or _is_image(value):
        value = [value]
    if isinstance(value, numpy.ndarray) and value.dtype == numpy.uint8 and value.ndim == 4:
        value = list(value)
    return dataset_from(value)


def loader(dataset: Any, batch_size: int = 32, num_workers: int = 0) -> Iterable[Batch]:
    """Batches of a prepared dataset in its own order."""
    return cast("Iterable[Batch]", DataLoader(dataset, batch_size=batch_size, shuffle=False, num_workers=num_workers))


def prepared(dataset: Any, model: nn.Module) -> Any:
    """The dataset with its raw samples put through the model's preprocessing, as for evaluation."""
    preprocess = model.preprocess if isinstance(model, PretrainedModel) else None
    return dataset if preprocess is None else prepare(dataset, preprocess, training=False)


def part(dataset: Any, indices: Sequence[int]) -> Any:
    """Some samples of a dataset."""
    return Subset(cast("Dataset[Any]", dataset), indices)


def length(dataset: Any) -> int:
    """Number of samples; raises for streams, which have none, and for datasets without samples."""
    if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
        raise ConfigurationError(
            f"{type(dataset).__name__} has no length or no items by number; features of a whole dataset need a "
            "map-style one (__len__ and __getitem__). Call the extractor on each batch of a stream instead."
        )
    if len(dataset) == 0:
        raise EmptyDatasetError(f"the {type(dataset).__name__} has no samples to take features from.")
    return len(dataset)


def _is_image(value: Any) -> bool:
    is_array = isinstance(value, numpy.ndarray) and value.dtype == numpy.uint8 and value.ndim in (2, 3)
    # Pillow is asked for its class only where a value may be one: it is not needed for texts.
    return is_array or type(value).__module__.startswith("PIL.")
