"""A model judged before and after a method that changes its head alone: the layers below run once for both."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neurenix.transfer.adaptation import DomainAdapter

Samples = tuple[Tensor, Tensor]
COUNT, PROBED = 240, 24  # samples of a domain; and of those that are looked at before rows are trusted, the most


@pytest.fixture
def domains(generator: torch.Generator) -> tuple[Samples, Samples]:
    """Two classes of points, and the same elsewhere."""
    labels = torch.arange(COUNT) % 2
    source = torch.randn(COUNT, 4, generator=generator) + 2.0 * labels[:, None]
    target = 0.5 * torch.randn(COUNT, 4, generator=generator) + 2.0 * labels[:, None] + 1.0
    return (source, labels), (target, labels)


class Counted(nn.Module):
    """A layer that notes how many samples came."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 8)
        self.sizes: list[int] = []

    def forward(self, points: Tensor) -> Tensor:
        self.sizes.append(len(points))
        return self.layer(points).tanh()


def adapted(domains: tuple[Samples, Samples], **options: Any) -> tuple[Any, int]:
    """The adapter, and how many samples its first layer saw in the adaptation alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(Counted(), nn.Linear(8, 2))
    options |= {"num_classes": 2, "chooses": False, "learning_rate": 0.05, "precision": "fp32"}
    adapter = DomainAdapter(network, method="feature_coral", **options)
    (source, target), layer = domains, next(part for part in adapter.model.modules() if isinstance(part, Counted))
    adapter.tuner.fit(source, epochs=3, run=False)
    layer.sizes.clear()
    adapter.fit(source, target[0], target, run=False)
    return adapter, sum(layer.sizes)


@pytest.mark.filterwarnings("ignore::neurenix.errors.NegativeTransferWarning")
def test_the_layers_below_the_head_run_once_for_both(domains: tuple[Samples, Samples]) -> None:
    once, fewer = adapted(domains)
    twice, more = adapted(domains, frozen_prefix="never")
    assert more - fewer >= 2 * COUNT + COUNT // 10 - PROBED  # the target without labels and with them, held-out source
    for kind in ("source_only", "scores"):
        ours, theirs = getattr(once.report, kind), getattr(twice.report, kind)
        assert ours == pytest.approx(theirs, rel=1e-4) and set(ours) >= {"target_accuracy", "source_accuracy"}
    assert once.report.source_only["entropy"] != once.report.scores["entropy"]


@pytest.mark.filterwarnings("ignore::neurenix.errors.NegativeTransferWarning")
def test_what_learns_is_as_before(domains: tuple[Samples, Samples]) -> None:
    adapter, _ = adapted(domains, freeze_layers=["0.layer.bias"])
    learns = {name: parameter.requires_grad for name, parameter in adapter.model.named_parameters()}
    assert [name for name, trains in learns.items() if not trains] == ["trunk.module.0.layer.bias"]
