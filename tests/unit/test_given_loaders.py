"""Loaders that a user brings: what they say of batches is followed, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)
from torch.utils.data import DataLoader as TorchDataLoader

from neurenix.callbacks import Callback
from neurenix.data import DataLoader
from neurenix.errors import ConfigurationError, InputMismatchError
from neurenix.transfer import Finetuner

COUNT = 33
DATA = TensorDataset(torch.randn(COUNT, 4, generator=torch.Generator().manual_seed(0)), torch.arange(COUNT) % 3)


class Seen(Callback):
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self.sizes.append(logs["samples"] - sum(self.sizes))


def tuner(norm: bool = True) -> Finetuner:
    body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.ReLU())
    return Finetuner(nn.Sequential(body, nn.Linear(8, 3)), num_classes=3, strategy="full")


def sizes(loader: Any, norm: bool = True) -> list[int]:
    seen = Seen()
    tuner(norm).fit(loader, epochs=1, run=False, callbacks=seen)
    return seen.sizes


class Balanced(BatchSampler):
    """Stands for whatever a user makes batches by."""


REFUSED: dict[str, Any] = {
    "WeightedRandomSampler": lambda: TorchDataLoader(DATA, 8, sampler=WeightedRandomSampler([1.0] * COUNT, COUNT)),
    "Balanced": lambda: TorchDataLoader(DATA, batch_sampler=Balanced(SequentialSampler(DATA), 8, False)),
    r"RandomSampler\(replacement=True": lambda: TorchDataLoader(DATA, 8, sampler=RandomSampler(DATA, True)),
    r"num_samples=5\)": lambda: TorchDataLoader(DATA, 8, sampler=RandomSampler(DATA, num_samples=5)),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_would_not_be_followed_is_refused(words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        sizes(REFUSED[words]())


def test_torchs_own_batch_sampler_is_followed() -> None:
    batches = BatchSampler(SequentialSampler(DATA), 8, False)
    assert sizes(TorchDataLoader(DATA, batch_sampler=batches), norm=False) == [8] * 4 + [1]


@pytest.mark.parametrize("kind", [DataLoader, TorchDataLoader])
def test_a_batch_of_one_that_a_loader_drops_is_not_trained_on(kind: Any) -> None:
    assert sizes(kind(DATA, 8, drop_last=True)) == [8] * 4
    with pytest.raises(InputMismatchError, match="drop_last=True"):
        sizes(kind(DATA, 8))


@pytest.mark.parametrize("kind", [DataLoader, TorchDataLoader])
def test_a_loader_that_drops_everything_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="leaves no batch"):
        sizes(kind(DATA, 64, drop_last=True))


@pytest.mark.parametrize("kind", [DataLoader, TorchDataLoader])
def test_all_samples_are_evaluated_and_predicted(kind: Any) -> None:
    """The last one is the only one of a class that nothing else answers."""
    loader, trained = kind(DATA, 8, drop_last=True), tuner()
    trained.fit(DATA, batch_size=11, epochs=1, run=False)
    assert len(trained.predict(loader)) == COUNT
    assert trained.evaluate(loader) == pytest.approx(trained.evaluate(DATA, batch_size=8))


def test_views_and_lengths_of_neurenixs_own_loader() -> None:
    made = tuner()
    loader = made._loader(DataLoader(DATA, 8, views=3, lengths=range(1, COUNT + 1)), 32, 0, "training")
    assert loader.views == 3 and loader.batch_size == 8 and list(loader.lengths) == list(range(1, COUNT + 1))
    assert made._loader(DataLoader(DATA, 8, views=3), 32, 0, "evaluation").views is None


def test_a_subset_in_a_loader() -> None:
    assert sizes(TorchDataLoader(Subset(DATA, range(10)), 4, shuffle=True)) == [4, 4, 2]
