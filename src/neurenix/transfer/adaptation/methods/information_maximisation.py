"""Information maximisation: predictions of the target that are sure, and spread over the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from ..method import METHODS, DomainStep, Sizes, Term, TermMethod
from ._information import information
from ._nothing import nothing
from ._settings import check_at_least_zero, check_positive


@METHODS.register("information_maximisation", "information_maximization")
@final
@dataclass(frozen=True, kw_only=True)
class InformationMaximisation(TermMethod):
    """The entropy of each of the target's predictions is made small, and that of their mean large.

    Krause, Perona & Gomes, Discriminative Clustering by Regularized Information Maximization, NeurIPS 2010, equation 4.
    With diversity=0 it is entropy minimisation: Grandvalet & Bengio, Semi-supervised Learning by Entropy Minimization,
    NeurIPS 2004.

    weight: of both. diversity: of the mean's entropy, relative to the samples'; at 0 a class may lose all samples.
    """

    family: ClassVar[str] = "self_training"
    weight: float = 0.1
    diversity: float = 1.0

    def check(self) -> None:
        """The weight is positive, the diversity's at least 0."""
        check_positive("weight", self.weight)
        check_at_least_zero("diversity", self.diversity)

    def term(self, sizes: Sizes) -> Term:
        """The information in the target's predictions."""
        return _Term(self)


@final
class _Term(Term):
    def __init__(self, method: InformationMaximisation) -> None:
        super().__init__()
        self.method = method

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        if not len(step.target):
            return {"information": nothing(step.target)}
        return {"information": self.method.weight * information(step.target.outputs, self.method.diversity)}
