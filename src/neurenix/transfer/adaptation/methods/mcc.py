"""MCC: predictions of the target that do not confuse one class with another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..method import METHODS, DomainStep, Sizes, Term, TermMethod
from ._information import entropies
from ._nothing import nothing
from ._settings import check_positive


def class_confusion(logits: Tensor, temperature: float) -> Tensor:
    """Mean over classes of the share of a class's answers that other classes are given too.

    Jin et al., Minimum Class Confusion for Versatile Domain Adaptation, ECCV 2020, section 3: probabilities p of
    logits / T, weights w_i ∝ 1 + exp(−H(p_i)) with sum n, class correlation C = pᵀ diag(w) p with rows scaled to sum 1,
    of which what is off the diagonal is summed and divided by k. As in the authors' code no gradient goes through the
    weights: confusion is not lowered by being less sure. logits: (n, k) -> (), in [0, 1)
    """
    scaled = logits / temperature
    probabilities = scaled.softmax(1)
    weights = 1 + torch.exp(-entropies(scaled.detach()))
    weights = len(logits) * weights / weights.sum()
    correlation = probabilities.T @ (weights.unsqueeze(1) * probabilities)
    shares = correlation / correlation.sum(1, keepdim=True).clamp_min(torch.finfo(logits.dtype).tiny)
    return (shares.sum() - shares.diagonal().sum()) / logits.shape[1]


@METHODS.register("mcc")
@final
@dataclass(frozen=True, kw_only=True)
class MCC(TermMethod):
    """The confusion between classes in the target's predictions is part of the loss.

    Jin et al., Minimum Class Confusion for Versatile Domain Adaptation, ECCV 2020. It aligns nothing, so it also suits
    targets that lack classes.

    weight: of the confusion. temperature: above 1, predictions are made less sure before they are compared.
    """

    family: ClassVar[str] = "self_training"
    weight: float = 1.0
    temperature: float = 2.5

    def check(self) -> None:
        """Weight and temperature are positive."""
        check_positive("weight", self.weight)
        check_positive("temperature", self.temperature)

    def term(self, sizes: Sizes) -> Term:
        """The confusion of the target's predictions."""
        return _Term(self)


@final
class _Term(Term):
    def __init__(self, method: MCC) -> None:
        super().__init__()
        self.method = method

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        if not len(step.target):
            return {"confusion": nothing(step.target)}
        return {"confusion": self.method.weight * class_confusion(step.target.outputs, self.method.temperature)}
