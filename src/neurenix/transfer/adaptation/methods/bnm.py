"""BNM: predictions of the target that are sure, and of many classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from ..method import METHODS, DomainStep, Sizes, Term, TermMethod
from ._nothing import nothing
from ._settings import check_positive
from ._spectrum import singular_values


def negative_nuclear_norm(logits: Tensor) -> Tensor:
    """−||P||_* / n: the sum of the singular values of the matrix of probabilities P, which is large where rows are sure
    and differ.

    Cui et al., Towards Discriminability and Diversity: Batch Nuclear-norm Maximization under Label Insufficient
    Situations, CVPR 2020, section 3. logits: (n, k) -> (), at least −√(min(n, k) / n)
    """
    return -singular_values(logits.softmax(1)).sum() / len(logits)


@METHODS.register("bnm")
@final
@dataclass(frozen=True, kw_only=True)
class BNM(TermMethod):
    """The nuclear norm of the target's predictions is maximised.

    Cui et al., Towards Discriminability and Diversity: Batch Nuclear-norm Maximization under Label Insufficient
    Situations, CVPR 2020.

    weight: of the norm.
    """

    family: ClassVar[str] = "self_training"
    weight: float = 1.0

    def check(self) -> None:
        """The weight is positive."""
        check_positive("weight", self.weight)

    def term(self, sizes: Sizes) -> Term:
        """The norm of the target's predictions."""
        return _Term(self)


@final
class _Term(Term):
    def __init__(self, method: BNM) -> None:
        super().__init__()
        self.method = method

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        if not len(step.target):
            return {"nuclear_norm": nothing(step.target)}
        return {"nuclear_norm": self.method.weight * negative_nuclear_norm(step.target.outputs)}
