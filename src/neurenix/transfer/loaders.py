"""Whatever a user passes as data becomes a loader of batches that the model can read."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import RandomSampler, SequentialSampler

from ..data import ArrayDataset, Batch, DataLoader, as_dataset, prepare
from ..errors import ConfigurationError
from ..models import PretrainedModel


def loader_for(
    data: Any, model: PretrainedModel, *, batch_size: int, num_workers: int, training: bool, seed: int
) -> DataLoader:
    """A loader over `data`, shuffled for training, with the model's preprocessing where samples are raw.

    A loader of neurenix or of torch brings its own dataset, batch size and workers.
    """
    collate = None
    if isinstance(data, (DataLoader, TorchDataLoader)):
        collate, batch_size, num_workers, data = _opened(data, batch_size)
    if batch_size < 1:
        raise ConfigurationError(f"batch_size={batch_size}; it is a count of samples, at least 1.")
    dataset = ArrayDataset(data) if isinstance(data, torch.Tensor) else as_dataset(data)
    return DataLoader(
        prepare(dataset, model.preprocess, training),
        batch_size=batch_size,
        shuffle=training,
        num_workers=num_workers,
        seed=seed,
        collate=collate,
    )


def first_batch(loader: DataLoader, model: PretrainedModel) -> Batch:
    """The first batch, compared with what the weights were trained on before any time is spent on the rest."""
    batch = next(iter(loader.batches(0)))
    if hasattr(model.preprocess, "check"):
        model.preprocess.check(batch.inputs)
    return batch


def _opened(loader: DataLoader | TorchDataLoader[Any], batch_size: int) -> tuple[Any, int, int, Any]:
    """(collate or None, batch size, workers, dataset) of a loader."""
    if isinstance(loader, DataLoader):
        return loader.collate, loader.batch_size, loader.num_workers, loader.dataset
    if not isinstance(loader.sampler, (RandomSampler, SequentialSampler)):
        raise ConfigurationError(
            f"this DataLoader draws its samples with {type(loader.sampler).__name__}, which training here would not "
            "follow. Pass its dataset; for unequal classes use class_weights='balanced'."
        )
    default = torch.utils.data.default_collate
    collate = None if loader.collate_fn is default else loader.collate_fn
    return collate, loader.batch_size or batch_size, loader.num_workers, loader.dataset
