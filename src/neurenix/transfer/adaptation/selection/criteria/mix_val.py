"""MixVal: whether the answer to a mixture of two target samples is that of the larger share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from .....errors import ConfigurationError
from ..criterion import CRITERIA, Criterion, Evidence


@CRITERIA.register("mix_val")
@final
@dataclass(frozen=True, kw_only=True)
class MixVal(Criterion):
    """Share of mixtures λ a + (1 − λ) b of target samples with different answers that are answered as a is.

    Hu et al., Mixed Samples as Probes for Unsupervised Model Selection in Domain Adaptation, NeurIPS 2023, between
    clusters. Deviation: features are mixed and not inputs, which for a linear head is the same as mixing its
    outputs and takes no forward pass; mixtures within a cluster are then always answered alike. share: λ, above ½.
    """

    higher_is_better: ClassVar[bool] = True
    share: float = 0.55
    seed: int = 0

    def check(self) -> None:
        """The share has to be the larger one."""
        if not 0.5 < self.share < 1:
            raise ConfigurationError(f"share={self.share}; it is between ½ and 1, 0.55 in the paper.")

    def compute(self, evidence: Evidence) -> float:
        """Of the target's outputs."""
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(evidence.target_outputs), generator=generator)
        outputs = evidence.target_outputs.double()
        return float(mixed_agreement(outputs, outputs[order.to(outputs.device)], self.share))


def mixed_agreement(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Of the pairs with different decisions, the share whose mixture is decided as the first. (n, k) twice -> ().

    0 where no pair differs: one answer for all says nothing of the classes.
    """
    decided = first.argmax(1)
    differ = decided != second.argmax(1)
    if not differ.any():
        return torch.zeros(())
    mixed = share * first[differ] + (1 - share) * second[differ]
    return (mixed.argmax(1) == decided[differ]).double().mean()
