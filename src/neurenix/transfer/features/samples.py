"""From what a caller holds (tensors, images, texts, datasets) to batches that a model reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any, cast

import numpy
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from ...data import Batch, DataLoader, check_inputs, innermost, prepare
from ...data import as_dataset as dataset_from
from ...errors import ConfigurationError, EmptyDatasetError
from ...models._pretrained_model import PretrainedModel
from ..one_or_many import many
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
    return value if isinstance(value, Tensor) and value.dtype != torch.uint8 else None


def as_dataset(value: Any, model: nn.Module) -> Any:
    """A dataset of what `value` holds: whatever fit takes, or one raw sample."""
    value = many(value, _preprocess(model))
    if isinstance(value, numpy.ndarray) and value.dtype == numpy.uint8:
        value = list(value)
    return dataset_from(value)


def loader(dataset: Any, model: nn.Module, batch_size: int = 32, num_workers: int = 0) -> Iterator[Batch]:
    """Batches of a prepared dataset in its own order; the first one is compared with what the weights expect."""
    checked = False
    lengths = innermost(dataset, "lengths")
    for batch in DataLoader(dataset, batch_size=batch_size, shuffle=False, num_workers=num_workers, lengths=lengths):
        if not checked and len(batch):
            check(batch.inputs, model)
            checked = True
        yield batch


def check(inputs: Inputs, model: nn.Module) -> None:
    """Raise InputMismatchError, or warn, when a batch is not what the model's weights expect."""
    check_inputs(inputs, _preprocess(model))


def prepared(dataset: Any, model: nn.Module) -> Any:
    """The dataset with its raw samples put through the model's preprocessing, as for evaluation."""
    return prepare(dataset, _preprocess(model), training=False)


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


def _preprocess(model: nn.Module) -> Any:
    return model.preprocess if isinstance(model, PretrainedModel) else None
