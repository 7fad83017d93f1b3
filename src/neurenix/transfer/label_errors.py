"""Which labels are probably wrong? Asked of features that a frozen network gives, by leave-one-out predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from ..errors import ConfigurationError, LabelMismatchError
from ..training import classification_head


@dataclass(frozen=True)
class LabelError:
    """index: place of the sample. given, suggested: its class and the one that its features speak for.

    doubt: suggested class's probability minus the given one's, from 0 to 1.
    """

    index: int
    given: Any
    suggested: Any
    doubt: float


@dataclass(frozen=True)
class LabelErrors(Sequence[LabelError]):
    """The labels to look at, most doubtful first, among `samples`. Print it."""

    found: tuple[LabelError, ...]
    samples: int

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, place: Any) -> Any:
        return self.found[place]

    def __iter__(self) -> Iterator[LabelError]:
        return iter(self.found)

    @property
    def indices(self) -> list[int]:
        """Places of the samples."""
        return [error.index for error in self.found]

    def __str__(self) -> str:
        lines = [f"{len(self)} of {self.samples} labels look wrong" + (":" if self.found else ".")]
        lines += [f"  sample {e.index}: {e.given} -> {e.suggested}? ({e.doubt:.2f})" for e in self.found[:20]]
        return "\n".join(lines + ([f"  and {len(self) - 20} more"] if len(self) > 20 else []))


def find_label_errors(
    features: Tensor | numpy.ndarray, targets: Any, classes: Sequence[str] = (), rounds: int = 2
) -> LabelErrors:
    """Labels that the features contradict.

    features: (n, d), as FeatureExtractor.extract gives them. targets: (n,) class numbers. classes: their names.
    rounds: how often the predictions are made anew without the samples that were found, which would mislead them.

    Every sample is predicted by a ridge head solved without it. Class j is confident of a sample when its probability
    is at least the mean probability of the samples labelled j; the most probable of the confident classes is what a
    sample should be called. Northcutt, Jiang & Chuang, Confident Learning, JAIR 70 (2021), eq. 1 and 2.

    Raises LabelMismatchError for targets that are no class numbers, ConfigurationError for too few samples.
    """
    x = torch.as_tensor(features).double().flatten(1)
    y = _class_numbers(targets, len(x))
    if rounds < 1:
        raise ConfigurationError(f"rounds={rounds}; at least one is needed.")
    trusted = torch.ones(len(x), dtype=torch.bool)
    for _ in range(rounds):
        shares = _left_out_probabilities(x, y, trusted)
        suggested = _confident(shares, y)
        trusted = suggested == y
    doubts = shares.gather(1, suggested[:, None]).squeeze(1) - shares.gather(1, y[:, None]).squeeze(1)
    order = torch.argsort(doubts, descending=True)
    places = [int(place) for place in order if suggested[place] != y[place]]
    names: Sequence[Any] = list(classes) or range(int(y.max()) + 1)
    given, better = ([names[number] for number in chosen.tolist()] for chosen in (y, suggested))
    found = [LabelError(i, given[i], better[i], round(float(doubts[i]), 4)) for i in places]
    return LabelErrors(tuple(found), len(x))


def _left_out_probabilities(x: Tensor, y: Tensor, trusted: Tensor) -> Tensor:
    """(n, classes): of trusted samples by a head solved without each of them, of the others by that of all trusted."""
    head = classification_head(x[trusted], y[trusted], int(y.max()) + 1)
    logits = x @ head.weight.T + head.bias
    logits[trusted] = head.left_out
    return logits.softmax(1)


def _confident(shares: Tensor, y: Tensor) -> Tensor:
    """(n,): the most probable of the classes that are confident of a sample; its own where none is."""
    classes = range(shares.shape[1])
    thresholds = torch.stack([shares[y == number, number].mean() for number in classes])
    confident = torch.where(shares >= thresholds, shares, -1.0)
    best = confident.argmax(1)
    return torch.where(confident.gather(1, best[:, None]).squeeze(1) >= 0, best, y)


def _class_numbers(targets: Any, count: int) -> Tensor:
    y = torch.as_tensor(numpy.asarray(targets))
    if y.shape != (count,) or y.is_floating_point() or bool((y < 0).any()):
        raise LabelMismatchError(
            f"targets of shape {tuple(y.shape)} and type {str(y.dtype).removeprefix('torch.')} came for {count} "
            "samples; label errors are looked for among class numbers 0, 1, …, one for each sample."
        )
    sizes = torch.bincount(y.long())
    if len(sizes) < 2 or int(sizes.min()) < 3:
        raise ConfigurationError(
            f"the classes have {sizes.tolist()} samples; two classes and three samples of each are the least to find "
            "errors among."
        )
    return y.long()
