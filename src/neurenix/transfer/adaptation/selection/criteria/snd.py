"""SND: how many neighbours a target sample has among the model's own answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from .....errors import ConfigurationError
from ..criterion import CRITERIA, Criterion, Evidence
from ._answers import entropy

_BLOCK = 512  # rows of the similarities at a time


@CRITERIA.register("snd", "soft_neighbourhood_density")
@final
@dataclass(frozen=True, kw_only=True)
class SND(Criterion):
    """Soft neighbourhood density: samples of a class should be close to each other, and to no others.

    Saito et al., Tune it the Right Way, ICCV 2021. Known failure: it is highest, log(m − 1), where
    every sample gets the same answer, so it never chooses alone.
    """

    higher_is_better: ClassVar[bool] = True
    temperature: float = 0.05

    def check(self) -> None:
        """The temperature has to be positive."""
        if self.temperature <= 0:
            raise ConfigurationError(f"temperature={self.temperature}; it is above 0, 0.05 in the paper.")

    def compute(self, evidence: Evidence) -> float:
        """Of the target's probabilities."""
        return float(soft_neighbourhood_density(evidence.target_outputs.double().softmax(1), self.temperature))


def soft_neighbourhood_density(rows: Tensor, temperature: float) -> Tensor:
    """Mean over i of the entropy of P_i, P_ij = exp(s_ij / τ) / Σ_{l ≠ i} exp(s_il / τ), s the cosine similarity.

    rows: (m, k). -> (), in nats, 0 … log(m − 1); 0 for fewer than two rows.
    """
    count = len(rows)
    if count < 2:
        return rows.new_zeros(())
    directions = functional.normalize(rows, dim=1)
    total = rows.new_zeros(())
    for start in range(0, count, _BLOCK):
        block = directions[start : start + _BLOCK] @ directions.T / temperature
        own = torch.arange(len(block), device=rows.device)
        block[own, own + start] = -torch.inf
        total = total + entropy(block.softmax(1)).sum()
    return total / count
