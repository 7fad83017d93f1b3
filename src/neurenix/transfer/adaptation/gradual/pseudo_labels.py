"""Labels that a model gives to samples without any: which of them to trust, and a dataset that carries them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy
import torch
from torch import Tensor

from ....data import Dataset, Subset
from ....data.gathering import Gathered
from ....registry import Registry

LABELS: Registry[Callable[[Tensor], Tensor]] = Registry("kind of pseudo-labels")
_LEAST_SHARE = 1e-6  # no class is impossible, so that shares are never one-hot


@LABELS.register("hard")
def hard_labels(probabilities: Tensor) -> Tensor:
    """The most probable class. Kumar, Ma & Liang, ICML 2020, equation 4. (n, k) -> (n,) class numbers."""
    return probabilities.argmax(1)


@LABELS.register("soft")
def soft_labels(probabilities: Tensor) -> Tensor:
    """The probabilities themselves, which say nothing new: on a moved domain the model learns to stay as it is.

    Kumar, Ma & Liang, ICML 2020, section 5.2, where hard labels are better. (n, k) -> (n, k), rows sum to 1.
    """
    shares = probabilities.double().clamp(min=_LEAST_SHARE)
    return (shares / shares.sum(1, keepdim=True)).float()


def confidence(probabilities: Tensor) -> Tensor:
    """Largest minus smallest probability of a class. (n, k) -> (n,), in [0, 1]."""
    return probabilities.amax(1) - probabilities.amin(1)


def confident_places(probabilities: Tensor, trim: float) -> Tensor:
    """Places of the samples that stay when the least confident share is left out, in their order.

    Kumar, Ma & Liang, ICML 2020, section 5, drop a tenth in each step. Equal ones are left out from the last place on.
    probabilities: (n, k). trim: in [0, 1). -> (n - floor(trim · n),)
    """
    kept = len(probabilities) - math.floor(trim * len(probabilities))
    order = confidence(probabilities).argsort(descending=True, stable=True)
    return order[:kept].sort().values


@final
class PseudoLabelled(Dataset):
    """Samples of a dataset under labels that are given here; its own, if it has any, are not looked at.

    places: (n,) of the samples in the dataset. labels: (n,) class numbers or (n, k) shares. classes: names of the
    labels, empty for class numbers.
    """

    def __init__(self, dataset: Any, places: Sequence[int] | Tensor, labels: Tensor, classes: Sequence[str]) -> None:
        self._samples = Subset(dataset, numpy.asarray(places))
        self._labels = labels
        self.classes = list(classes)
        self.on_bad = self._samples.on_bad
        self.in_memory = self._samples.in_memory

    @property
    def targets(self) -> numpy.ndarray:
        """The labels."""
        return self._labels.numpy()

    @property
    def lengths(self) -> numpy.ndarray | None:
        """Length of each sample (tokens, milliseconds), where the dataset knows it."""
        return self._samples.lengths

    @property
    def collate(self) -> Callable[[list[Any]], tuple[Any, Any]] | None:
        """The dataset's own way of making a batch."""
        return self._samples.collate

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        label = self._labels[index]
        return self._samples[index][0], int(label) if label.ndim == 0 else label

    def gather(self, places: Tensor) -> Gathered | None:
        """As the dataset gathers them, under the labels given here."""
        found, labels = self._samples.gather(places), self._labels[places]
        return None if found is None else (found[0], labels.long() if labels.ndim == 1 else labels)

    def sample_name(self, index: int) -> str:
        """The name that the sample has in the dataset."""
        return self._samples.sample_name(index)


def as_tensor(probabilities: numpy.ndarray) -> Tensor:
    """(n, k) float32."""
    return torch.from_numpy(numpy.ascontiguousarray(probabilities))
