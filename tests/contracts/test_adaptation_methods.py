"""Methods that bring domains together, or sharpen the target's predictions, beat training on the source alone.

"Shortcut blobs": three clouds in a plane, and beside it three features that name the class, but in the source alone.
In the target those are noise, and the clouds have moved by less than lies between them. A model of the source leans
on the shortcut, and draws its borders through the target's clouds.
"""

from __future__ import annotations

import functools
import math
import os
from typing import Any

import pytest
import torch
from tests.devices import DEVICE
from torch import Tensor, nn

from neurenix.data import ArrayDataset
from neurenix.transfer import DomainAdapter, Finetuner, compare_adaptations
from neurenix.transfer.adaptation.method import METHODS

CLASSES, SAMPLES, EPOCHS, SOURCE_EPOCHS = 3, 300, 15, 5
PROVE = bool(os.environ.get("NEURENIX_PROVE"))
SEEDS = range(5 if PROVE else 1)
# With settings of their own where the default ones are for more than 150 steps of a network this small. AFN and AdaBN
# do not do it in every seed; the classical methods that weigh samples need some that are like the target's, and there
# are none (docs/log.md).
TRIED: dict[str, Any] = {
    **dict.fromkeys(("bnm", "bsp", "cdan", "dan", "dann", "deep_coral", "fixmatch"), {}),
    **dict.fromkeys(("information_maximisation", "jan", "mcc", "mcd", "shot"), {}),
    "adda": {"weight": 0.03, "hidden_size": 32},
    "mdd": {"weight": 0.1, "reversal": 1.0, "margin": 2.0},
    "mean_teacher": {"decay": 0.9},
    "contrastive": {"temperature": 1.0},
    "masked_reconstruction": {"weight": 3.0, "share": 0.75, "domains": "target"},
    "class_transport": {"max_inner_iterations": 2000},
    **dict.fromkeys(("feature_coral", "linear_transport", "sinkhorn_transport", "subspace_alignment", "transport"), {}),
    **dict.fromkeys(("eta", "tent"), {}),
}
WITH_BATCH_NORMS = ("eta", "tent")  # which they learn
QUICK = ("dann", "deep_coral", "mcc", "mcd", "shot")  # without NEURENIX_PROVE


def blobs(seed: int, domain: str) -> tuple[Tensor, Tensor]:
    """(300, 6) points and their classes. domain: "source", or "target" and other samples of it, "test"."""
    generator = torch.Generator().manual_seed(10 * seed + ["source", "target", "test"].index(domain))
    labels = torch.arange(SAMPLES) % CLASSES
    angles = 2 * math.pi * labels / CLASSES
    clouds = 1.5 * torch.stack([angles.cos(), angles.sin()], 1) + 0.3 * torch.randn(SAMPLES, 2, generator=generator)
    noise, nuisance = torch.randn(SAMPLES, CLASSES, generator=generator), torch.randn(SAMPLES, 1, generator=generator)
    if domain == "source":
        return torch.cat([clouds, 2 * nn.functional.one_hot(labels, CLASSES) + 0.3 * noise, nuisance], 1), labels
    return torch.cat([clouds + torch.tensor([1.0, 0.5]), 0.5 * noise, nuisance + 0.5], 1), labels


def network(seed: int, norms: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for inputs, outputs in ((6, 32), (32, 16)):
            layers += [nn.Linear(inputs, outputs), *([nn.BatchNorm1d(outputs)] if norms else []), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(16, CLASSES)).to(DEVICE)


def accuracy(tuner: Any, seed: int) -> float:
    found: float = tuner.evaluate(ArrayDataset(*blobs(seed, "test")), batch_size=SAMPLES)["accuracy"]
    return found


COMMON: dict[str, Any] = {"strategy": "full", "learning_rate": 1e-2, "precision": "fp32"}  # the same everywhere


@functools.cache
def source_only(seed: int, norms: bool = False) -> float:
    """As many epochs as an adaptation has, on the source alone."""
    tuner = Finetuner(network(seed, norms), seed=seed, **COMMON)
    tuner.fit(ArrayDataset(*blobs(seed, "source")), epochs=SOURCE_EPOCHS + EPOCHS, run=False)
    return accuracy(tuner, seed)


def adapted(method: str, seed: int) -> float:
    model = network(seed, method in WITH_BATCH_NORMS)
    adapter = DomainAdapter(model, method=METHODS[method](**TRIED[method]), chooses=False, seed=seed, **COMMON)
    adapter.fit(
        ArrayDataset(*blobs(seed, "source")),
        ArrayDataset(blobs(seed, "target")[0]),
        epochs=EPOCHS,
        source_epochs=SOURCE_EPOCHS,
        run=False,
    )
    return accuracy(adapter, seed)


def test_the_source_alone_falls_for_the_shortcut() -> None:
    assert all(source_only(seed) < 0.9 for seed in SEEDS)


@pytest.mark.filterwarnings("ignore::neurenix.errors.NegativeTransferWarning")  # it may cry
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", TRIED if PROVE else QUICK)
def test_a_method_beats_the_source_alone_by_five_points(name: str, seed: int) -> None:
    assert adapted(name, seed) >= source_only(seed, name in WITH_BATCH_NORMS) + 0.05


@pytest.mark.filterwarnings("ignore::neurenix.errors.NegativeTransferWarning")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_choice_among_methods_beats_the_source_alone(seed: int) -> None:
    """By how they agree: 0.85 at worst and 0.95 on average of five seeds; by the criteria 0.82 and 0.93."""
    names = [*QUICK, "bsp", "cdan", "mdd"]
    table = compare_adaptations(
        network(seed),
        ArrayDataset(*blobs(seed, "source")),
        ArrayDataset(blobs(seed, "target")[0]),
        {name: METHODS[name](**TRIED[name]) for name in names},
        ArrayDataset(*blobs(seed, "test")),
        epochs=EPOCHS,
        source_epochs=SOURCE_EPOCHS,
        seeds=(seed,),
        settings=COMMON,
    )
    assert table.chosen.target is not None and table.chosen.target >= source_only(seed) + 0.05
