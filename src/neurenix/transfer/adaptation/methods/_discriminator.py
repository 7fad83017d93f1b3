"""The network that tells source from target, and its loss."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional


@final
class Discriminator(nn.Module):
    """(n, d) -> logits (n,), above 0 for the source. No batch norm: it would tell the domains by their statistics."""

    def __init__(self, features: int, hidden_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Logits (n,)."""
        logits: Tensor = self.layers(features).squeeze(1)
        return logits


def domain_loss(logits: Tensor, sources: int, weights: Tensor | None = None) -> Tensor:
    """½ mean_s −log σ(d) + ½ mean_t −log(1 − σ(d)): both domains count the same, however many samples each has.

    Half of what Ganin et al., JMLR 2016, equation 8 sums up, so that chance is log 2; in nats. logits: (n,), the
    source's `sources` rows first. weights: (n,), of the samples within their domain, or None for equal ones. -> ().
    Zero where a domain has no sample.
    """
    if not 0 < sources < len(logits):
        return logits.sum() * 0.0
    losses = torch.cat([functional.softplus(-logits[:sources]), functional.softplus(logits[sources:])])
    weights = torch.ones_like(losses) if weights is None else weights
    source, target = (_mean(losses[part], weights[part]) for part in (slice(sources), slice(sources, None)))
    return (source + target) / 2


def _mean(losses: Tensor, weights: Tensor) -> Tensor:
    return (losses * weights).sum() / weights.sum()
