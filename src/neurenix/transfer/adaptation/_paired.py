"""Two domains as one dataset, so that one loader, one frozen prefix and one checkpoint serve both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ...data import Dataset, innermost, known_targets, sample_name
from ...data._dataset import is_in_memory, known_lengths
from ...data.preparation import pair

SOURCE, TARGET = 0.0, 1.0


@final
class PairedDomains(Dataset):
    """The samples of `source`, then those of `target`; a target is [domain, label, …], float32.

    source, target: prepared datasets, or None for none of them. columns: numbers that a label takes.
    told: whether labels of the target are given too, for reports that compare with them; else they are NaN.
    """

    def __init__(self, source: Any, target: Any, *, columns: int, told: bool) -> None:
        self.datasets = tuple(dataset for dataset in (source, target) if dataset is not None)
        self._domains = [domain for domain, dataset in ((SOURCE, source), (TARGET, target)) if dataset is not None]
        self._columns, self._told = columns, told
        self.sizes = tuple(len(dataset) for dataset in self.datasets)
        self.classes: list[str] = []
        self.on_bad = innermost(self.datasets[0], "on_bad", "raise")
        self.in_memory = all(is_in_memory(dataset) for dataset in self.datasets)

    @property
    def targets(self) -> np.ndarray | None:
        """(n, 1 + columns), where the datasets know their labels without reading inputs."""
        parts = [
            _known(dataset, domain, self._columns, self._gives_labels(domain))
            for dataset, domain in zip(self.datasets, self._domains, strict=True)
        ]
        return (
            None
            if any(part is None for part in parts)
            else np.concatenate([part for part in parts if part is not None])
        )

    @property
    def lengths(self) -> np.ndarray | None:
        """(n,) tokens or milliseconds, where both know them."""
        parts = [known_lengths(dataset) for dataset in self.datasets]
        return (
            None
            if any(part is None for part in parts)
            else np.concatenate([part for part in parts if part is not None])
        )

    @property
    def collate(self) -> Callable[[list[Any]], tuple[Any, Any]] | None:
        """The first dataset's own way of making a batch."""
        own: Callable[[list[Any]], tuple[Any, Any]] | None = innermost(self.datasets[0], "collate")
        return own

    def __len__(self) -> int:
        return sum(self.sizes)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        part, place = self._found(index)
        raw, label = pair(self.datasets[part][place])
        row = torch.full((1 + self._columns,), float("nan"))
        row[0] = self._domains[part]
        if label is not None and self._gives_labels(self._domains[part]):
            row[1:] = torch.as_tensor(label, dtype=torch.float32)
        return raw, row

    def sample_name(self, index: int) -> str:
        """The name that the sample has in its dataset."""
        part, place = self._found(index)
        return sample_name(self.datasets[part], place)

    def _gives_labels(self, domain: float) -> bool:
        return domain == SOURCE or self._told

    def _found(self, index: int) -> tuple[int, int]:
        first = self.sizes[0]
        return (0, index) if index < first else (1, index - first)


def _known(dataset: Any, domain: float, columns: int, told: bool) -> np.ndarray | None:
    rows = np.full((len(dataset), 1 + columns), np.nan, dtype=np.float32)
    rows[:, 0] = domain
    if told:
        labels = known_targets(dataset)
        if labels is None:
            return None
        rows[:, 1:] = np.asarray(labels, dtype=np.float32).reshape(len(dataset), columns)
    return rows
