"""The alarm: it rings where DANN on a target without some classes falls below the source's model, and not where it helps.

Real fits of DomainAdapter on blobs whose source has a shortcut to the classes that the target lacks. Targets of the first
kind hold all classes evenly, those of the second a few of them.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from neurenix.errors import ConfigurationError, LabelMismatchError
from neurenix.models import PretrainedModel
from neurenix.transfer import DomainAdapter, Finetuner
from neurenix.transfer.adaptation import judge_adaptation
from neurenix.transfer.adaptation._objective import ask
from neurenix.transfer.adaptation.selection import Evidence

PROVE = bool(os.environ.get("NEURENIX_PROVE"))
CORE, SHORTCUT, SAMPLES = 8, 4, 500


@dataclass(frozen=True)
class Domains:
    classes: int
    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    target: tuple[Tensor, Tensor]


def domains(kind: str, seed: int) -> Domains:
    """Blobs in 12 dimensions; 4 of them follow the class in the source, and less or not at all in the target."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    classes = int(torch.randint(3, 7, (1,), generator=generator))
    means, shortcut = normal(classes, CORE) * between(1.2, 1.8), normal(classes, SHORTCUT) * between(1.0, 2.5)
    away, shift = 0.5 * normal(SHORTCUT), normal(CORE) * between(0.3, 1.0)
    left, shares = 0.0, torch.ones(classes)
    if kind == "partial":
        left, shares = between(0.0, 0.7), torch.zeros(classes)
        shares[torch.randperm(classes, generator=generator)[: max(1, classes // 3)]] = 1.0

    def drawn(count: int, of_target: bool) -> tuple[Tensor, Tensor]:
        labels = torch.multinomial(shares if of_target else torch.ones(classes), count, True, generator=generator)
        core, short = means[labels] + normal(count, CORE), shortcut[labels]
        if of_target:
            core, short = core + shift, left * short + 0.3 * normal(count, SHORTCUT) + away
        return torch.cat([core, short + 0.7 * normal(count, SHORTCUT)], 1), labels

    return Domains(classes, drawn(SAMPLES, False), drawn(SAMPLES // 2, False), drawn(SAMPLES, True))


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(CORE + SHORTCUT, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(),
            nn.Linear(32, 2),
        )  # fmt: skip


@torch.no_grad()
def seen(model: PretrainedModel, data: Domains) -> tuple[Evidence, float]:
    """What criteria may see of a model, and what they may not: its accuracy on the target."""
    source_features, source_outputs = ask(model, data.held_out[0])
    target_features, target_outputs = ask(model, data.target[0])
    evidence = Evidence(
        task="multi_class",
        source_features=source_features,
        source_outputs=source_outputs,
        source_targets=data.held_out[1],
        target_features=target_features,
        target_outputs=target_outputs,
    )
    return evidence, float((target_outputs.argmax(1) == data.target[1]).float().mean())


@functools.cache
def adapted(kind: str, seed: int) -> tuple[tuple[Evidence, float], tuple[Evidence, float]]:
    """Before and after."""
    data = domains(kind, seed)
    tuner = Finetuner(network(), num_classes=data.classes, head_hidden_sizes=(), learning_rate=2e-3, strategy="full")
    tuner.fit(data.train, epochs=8, run=False)
    adapter = DomainAdapter(tuner, method="dann")
    adapter.fit(data.train, data.target[0], epochs=12, source_epochs=0, run=False)
    return seen(tuner.model, data), seen(adapter.model, data)


if __name__ == "__main__":
    import sys

    for kind in ("even", "partial"):
        for seed in range(int(sys.argv[1]), int(sys.argv[2])):
            (before, old), (after, new) = adapted(kind, seed)
            verdict = judge_adaptation(before, after)
            print(
                kind,
                seed,
                f"{old:.3f} {new:.3f}",
                "HURTS" if verdict.hurts else "-",
                {
                    k: round(v, 3)
                    for k, v in verdict.evidence.items()
                    if k in ("risk", "label_shift", "torn", "clustering")
                },
                flush=True,
            )
