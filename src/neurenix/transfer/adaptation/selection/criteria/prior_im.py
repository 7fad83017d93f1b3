"""Prior IM: sure of each sample, and of as much of each class as is expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ...gap.label_shift import class_shares
from ..criterion import CRITERIA, Criterion, Evidence
from ._answers import entropies

_LEAST = 1e-3  # share of a class that is not expected at all: an estimate is never that sure


@CRITERIA.register("prior_im")
@final
@dataclass(frozen=True, kw_only=True)
class PriorIM(Criterion):
    """Information maximisation towards expected class shares, where IM expects the same of every class.

    Krause, Perona & Gomes, Discriminative Clustering by Regularized Information Maximization, NIPS 2010, with a prior
    of the classes. The shares are evidence.expected_shares, which AdaptationMetrics estimates by BBSE from the first
    model that it measures; where they are not known, those of the source.
    """

    higher_is_better: ClassVar[bool] = True

    def compute(self, evidence: Evidence) -> float:
        """Of the target's outputs."""
        shares = evidence.expected_shares
        if shares is None:
            shares = torch.from_numpy(class_shares(evidence.source_targets, evidence.source_outputs.shape[1]))
        return float(expected_information(evidence.target_outputs, shares))


def expected_information(outputs: Tensor, shares: Tensor) -> Tensor:
    """−KL(mean p ‖ shares) − mean H(p), in nats: at most 0. Of equal shares it is IM − log k.

    outputs: logits (n, k). shares: (k,), of which those below 0.001 count as 0.001. -> ().
    """
    mean = outputs.double().softmax(1).mean(0)
    known = shares.to(mean).clamp(min=_LEAST)
    return -(torch.xlogy(mean, mean) - mean * known.log()).sum() - entropies(outputs).mean()
