"""Two domains as one dataset, so that one loader, one frozen prefix and one checkpoint serve both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ...data import Dataset, innermost, known_targets, sample_name
from ...data._dataset import OnBad, check_on_bad, gathered, is_in_memory, known_lengths
from ...data.gathering import Gathered
from ...data.preparation import pair
from ...errors import ConfigurationError, LabelMismatchError

SOURCE, TARGET, REPORTED = 0.0, 1.0, 3.0  # as selection.AdaptationMetrics has them


@dataclass(frozen=True)
class Domain:
    """A prepared dataset and what it is: SOURCE, TARGET or REPORTED. told: whether its labels are given, else NaN."""

    dataset: Any
    code: float
    told: bool


@final
class PairedDomains(Dataset):
    """The samples of several domains, one after the other; a target is [domain, label, …], float32.

    columns: numbers that a label takes.
    """

    def __init__(self, *domains: Domain, columns: int) -> None:
        self._domains, self.columns = domains, columns
        self.datasets = tuple(domain.dataset for domain in domains)
        self.sizes = tuple(len(dataset) for dataset in self.datasets)
        self.classes: list[str] = []
        self.on_bad = _what_to_do_with_bad(self.datasets)
        self.in_memory = all(is_in_memory(dataset) for dataset in self.datasets)

    @property
    def targets(self) -> np.ndarray | None:
        """(n, 1 + columns), where the datasets know their labels without reading inputs."""
        return _joined([self._known(domain) for domain in self._domains])

    @property
    def lengths(self) -> np.ndarray | None:
        """(n,) tokens or milliseconds, where all know them."""
        return _joined([known_lengths(dataset) for dataset in self.datasets])

    @property
    def collate(self) -> Callable[[list[Any]], tuple[Any, Any]] | None:
        """The first dataset's own way of making a batch."""
        own: Callable[[list[Any]], tuple[Any, Any]] | None = innermost(self.datasets[0], "collate")
        return own

    def __len__(self) -> int:
        return sum(self.sizes)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        domain, place = self._found(index)
        raw, label = pair(domain.dataset[place])
        row = torch.full((1 + self.columns,), float("nan"))
        row[0] = domain.code
        if label is not None and domain.told:
            row[1:] = self._checked(torch.as_tensor(label, dtype=torch.float32), index)
        return raw, row

    def gather(self, places: Tensor) -> Gathered | None:
        """As the datasets gather them, where they make inputs of one kind and labels that fit."""
        inputs: list[Tensor] = []
        orders, rows, first = [], torch.full((len(places), 1 + self.columns), float("nan")), 0
        for domain, size in zip(self._domains, self.sizes, strict=True):
            here = ((places >= first) & (places < first + size)).nonzero().flatten()
            if len(here):
                found = gathered(domain.dataset, places[here] - first)
                if found is None or (inputs and not _are_alike(found[0], inputs[0])):
                    return None
                rows[here, 0] = domain.code
                if domain.told and found[1] is not None:
                    rows[here, 1:] = found[1].float().reshape(len(here), self.columns)
                inputs.append(found[0])
                orders.append(here)
            first += size
        return torch.cat(inputs)[torch.cat(orders).argsort()], rows

    def sample_name(self, index: int) -> str:
        """The name that the sample has in its dataset."""
        domain, place = self._found(index)
        return sample_name(domain.dataset, place)

    def _found(self, index: int) -> tuple[Domain, int]:
        for domain, size in zip(self._domains, self.sizes, strict=True):
            if index < size:
                return domain, index
            index -= size
        raise IndexError(f"there are {len(self)} samples")

    def _known(self, domain: Domain) -> np.ndarray | None:
        rows = np.full((len(domain.dataset), 1 + self.columns), np.nan, dtype=np.float32)
        rows[:, 0] = domain.code
        if domain.told:
            labels = known_targets(domain.dataset)
            if labels is None:
                return None
            rows[:, 1:] = np.asarray(labels, dtype=np.float32).reshape(len(domain.dataset), -1)
        return rows

    def _checked(self, label: Tensor, index: int) -> Tensor:
        if label.numel() != self.columns:
            raise LabelMismatchError(
                f"{self.sample_name(index)} has a label of {label.numel()} numbers, and the head's loss takes "
                f"{self.columns}; give as many."
            )
        return label.reshape(-1)


def _are_alike(one: Tensor, other: Tensor) -> bool:
    return (one.shape[1:], one.dtype, one.device) == (other.shape[1:], other.dtype, other.device)


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def _what_to_do_with_bad(datasets: Sequence[Any]) -> OnBad:
    """What the datasets say that can have unreadable samples; raises ConfigurationError where they disagree."""
    said = {innermost(dataset, "on_bad", "raise") for dataset in datasets if not is_in_memory(dataset)}
    if len(said) > 1:
        raise ConfigurationError(
            "source and target are read in the same batches, and one has on_bad='skip', the other on_bad='raise'; give "
            "both the same."
        )
    return check_on_bad(next(iter(said), "raise"))
