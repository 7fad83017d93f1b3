"""DEV: the importance-weighted risk with less variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from .....metrics import TaskKind
from ..criterion import CRITERIA, Criterion, Evidence
from ._answers import sample_losses
from ._domain_weights import domain_weights


@CRITERIA.register("dev", "deep_embedded_validation")
@final
@dataclass(frozen=True, kw_only=True)
class DEV(Criterion):
    """Deep embedded validation: an estimate of the target's risk from the source's losses and both domains' features.

    You et al., Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation, ICML 2019.
    Deviation: the domain classifier is linear. penalty: of that classifier.
    """

    higher_is_better: ClassVar[bool] = False
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label", "regression")
    penalty: float = 1.0

    def compute(self, evidence: Evidence) -> float:
        """Of the source's losses and both domains' features."""
        losses = sample_losses(evidence.task, evidence.source_outputs, evidence.source_targets)
        return float(controlled_risk(losses.cpu(), domain_weights(evidence, self.penalty)))


def controlled_risk(losses: Tensor, weights: Tensor) -> Tensor:
    """mean(w l) + η (mean(w) − 1), η = −cov(w l, w) / var(w), the control variate.

    losses, weights: (n,). -> (). η is 0 where all weights are the same.
    """
    weighted = losses * weights
    deviations = weights - weights.mean()
    variance = deviations.square().mean()
    if variance == 0:
        return weighted.mean()
    slope = -((weighted - weighted.mean()) * deviations).mean() / variance
    return weighted.mean() + slope * (weights.mean() - 1)
