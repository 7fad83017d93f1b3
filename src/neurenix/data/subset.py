"""Parts of a dataset that keep its labels and names, and the split into two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import torch

from ..errors import ConfigurationError
from ._dataset import Dataset, gathered, innermost, is_in_memory, known_lengths, known_targets, label_names, sample_name
from .conversion import as_dataset
from .gathering import Gathered
from .preparation import pair
from .sampling import epoch_order

_MEANINGS = ("units", "ignore_index", "background")  # what a dataset may say of its targets


@final
class Subset(Dataset):
    """The samples of `dataset` at `indices`, with its classes, targets, names and token lengths."""

    def __init__(self, dataset: Any, indices: Sequence[int] | np.ndarray) -> None:
        self.dataset = dataset
        self.indices = np.asarray(indices, dtype=np.int64)
        self.classes = label_names(dataset)
        self.on_bad = innermost(dataset, "on_bad", "raise")
        self.in_memory = is_in_memory(dataset)
        self.units, self.ignore_index, self.background = (innermost(dataset, name) for name in _MEANINGS)

    @property
    def targets(self) -> np.ndarray | None:
        """Targets of these samples; None when the dataset cannot tell them without reading inputs."""
        known = known_targets(self.dataset)
        return None if known is None else known[self.indices]

    @property
    def lengths(self) -> np.ndarray | None:
        """Length of each sample (tokens, milliseconds), where the dataset knows it."""
        known = known_lengths(self.dataset)
        return None if known is None else known[self.indices]

    @property
    def collate(self) -> Callable[[list[Any]], tuple[Any, Any]] | None:
        """The dataset's own way of making a batch."""
        own: Callable[[list[Any]], tuple[Any, Any]] | None = innermost(self.dataset, "collate")
        return own

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return pair(self.dataset[int(self.indices[index])])

    def gather(self, places: torch.Tensor) -> Gathered | None:
        """As the whole dataset gathers them."""
        return gathered(self.dataset, torch.from_numpy(self.indices[places.numpy()]))

    def sample_name(self, index: int) -> str:
        """The name that the sample has in the whole dataset."""
        return sample_name(self.dataset, int(self.indices[index]))


def split(dataset: Any, fraction: float, seed: int = 0, *, stratify: bool = True) -> tuple[Subset, Subset]:
    """(training, validation) parts of anything that as_dataset reads; `fraction` of the samples go to validation.

    stratify: keep every class's share in both parts, where targets are class numbers that the dataset can
    tell without reading inputs; real-valued and multiple targets are split at random.
    The same arguments give the same split. Raises ConfigurationError when a part would be empty.
    """
    dataset = as_dataset(dataset)
    count = len(dataset)
    if not 0 < fraction < 1 or round(count * fraction) in (0, count):
        raise ConfigurationError(
            f"fraction={fraction} of {count} samples leaves a part empty; it is the share, between 0 and 1, "
            "that goes to validation."
        )
    order = epoch_order(count, seed, 0, shuffle=True).numpy()
    targets = known_targets(dataset) if stratify else None
    if targets is not None and targets.ndim == 1 and targets.dtype.kind in "iu":
        chosen = _stratified(order, targets, round(count * fraction))
    else:
        chosen = order[: round(count * fraction)]
    return Subset(dataset, np.setdiff1d(order, chosen)), Subset(dataset, np.sort(chosen))


def _stratified(order: np.ndarray, targets: np.ndarray, wanted: int) -> np.ndarray:
    """The first samples of each class in `order`, `wanted` in all, by largest remainder."""
    classes, counts = np.unique(targets, return_counts=True)
    exact = counts * wanted / len(targets)
    quota = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(-(exact - quota), kind="stable")
    quota[by_remainder[: wanted - quota.sum()]] += 1
    labels = targets[order]
    return np.concatenate([order[labels == name][:amount] for name, amount in zip(classes, quota, strict=True)])
