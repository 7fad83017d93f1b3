"""InformationMaximisation: sure answers for target samples, and every class among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from ..method import METHODS, DomainStep, Sizes, Term, TermMethod
from ..strength import STRENGTHS
from ._information import information
from ._nothing import nothing
from ._settings import check_at_least_zero


@METHODS.register("information_maximisation", "information_maximization")
@final
@dataclass(frozen=True, kw_only=True)
class InformationMaximisation(TermMethod):
    """Each target sample's entropy falls, while that of their mean answer, over a batch, is held up.

    Krause, Perona & Gomes, NeurIPS 2010, equation 4; the target's part of Shi & Sha, Information-Theoretical Learning
    of Discriminative Clusters for Unsupervised Domain Adaptation, ICML 2012, equation 7. It expects that the classes
    are about as frequent as each other in the target; with diversity=0 it is plain entropy minimisation.

    weight: of the loss. diversity: weight of the mean answer's entropy. schedule: how the weight grows, a name in
    STRENGTHS.
    """

    family: ClassVar[str] = "self_training"
    weight: float = 0.1
    diversity: float = 1.0
    schedule: str = "sigmoid"

    def check(self) -> None:
        """The schedule has to exist."""
        check_at_least_zero("weight", self.weight)
        check_at_least_zero("diversity", self.diversity)
        STRENGTHS.canonical(self.schedule)

    def term(self, sizes: Sizes) -> Term:
        """Nothing that learns."""
        return _Term(self)


@final
class _Term(Term):
    def __init__(self, method: InformationMaximisation) -> None:
        super().__init__()
        self.method = method

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        method, target = self.method, step.target
        loss = information(target.outputs, method.diversity) if len(target) else nothing(target)
        return {"information": method.weight * STRENGTHS[method.schedule](step.progress) * loss}
