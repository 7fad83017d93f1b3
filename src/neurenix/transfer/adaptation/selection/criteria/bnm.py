"""BNM: the nuclear norm of the target's answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..criterion import CRITERIA, Criterion, Evidence


@CRITERIA.register("bnm", "nuclear_norm")
@final
@dataclass(frozen=True, kw_only=True)
class BNM(Criterion):
    """Sure and of many classes at once, as the sum of the singular values of the target's probabilities.

    Cui et al., Towards Discriminability and Diversity: Batch Nuclear-norm Maximization, CVPR 2020; as a validator
    in Musgrave et al., Three New Validators, 2022. Known failure: as IM's.
    """

    higher_is_better: ClassVar[bool] = True

    def compute(self, evidence: Evidence) -> float:
        """Of the target's probabilities."""
        return float(relative_nuclear_norm(evidence.target_outputs.double().softmax(1)))


def relative_nuclear_norm(probabilities: Tensor) -> Tensor:
    """Σ σ_i(P) over its bound, the square root of m · min(m, k) (m, k) -> (), at most 1.

    1 for sure answers spread evenly over all classes, 1/√k where they are of one class, 1/k where nothing is known.
    """
    rows, classes = probabilities.shape
    return torch.linalg.svdvals(probabilities).sum() / math.sqrt(rows * min(rows, classes))
