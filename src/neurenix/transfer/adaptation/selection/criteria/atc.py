"""ATC: the accuracy that the model's own confidence promises, calibrated on the source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..criterion import CRITERIA, Criterion, Evidence
from ._answers import entropies, sample_errors


@CRITERIA.register("atc", "average_thresholded_confidence")
@final
@dataclass(frozen=True, kw_only=True)
class ATC(Criterion):
    """Share of target samples whose confidence lies above the threshold that as many source samples miss as are wrong.

    Garg et al., Leveraging Unlabeled Data to Predict Out-of-Distribution Performance, ICLR 2022, with negative
    entropy as the confidence. Known failure: confident nonsense.
    """

    higher_is_better: ClassVar[bool] = True

    def compute(self, evidence: Evidence) -> float:
        """Of both domains' outputs."""
        errors = sample_errors(evidence.task, evidence.source_outputs, evidence.source_targets)
        source, target = -entropies(evidence.source_outputs), -entropies(evidence.target_outputs)
        return float(thresholded_accuracy(source, float(errors.mean()), target))


def thresholded_accuracy(source: Tensor, error: float, target: Tensor) -> Tensor:
    """mean(target ≥ t), t such that a share `error` of the source lies below. source: (n,), target: (m,). -> ()."""
    below = round(error * len(source))
    if below >= len(source):
        return torch.zeros(())
    return (target >= source.sort().values[below]).double().mean()
