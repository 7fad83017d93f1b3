"""Tent: a trained model becomes sure of target samples by its norms' scales and shifts alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from ..method import METHODS, DomainStep, Sizes, Term, TermMethod
from ._information import entropies
from ._nothing import nothing
from ._settings import check_positive


@METHODS.register("tent")
@final
@dataclass(frozen=True, kw_only=True)
class Tent(TermMethod):
    """The entropy of answers for target samples is minimised over scales and shifts of normalisation layers.

    Wang et al., Tent: Fully Test-Time Adaptation by Entropy Minimization, ICLR 2021, section 3. A model without such
    layers is refused with a ConfigurationError.

    weight: of the loss.
    """

    family: ClassVar[str] = "test_time"
    uses_source: ClassVar[bool] = False
    trains: ClassVar[str] = "norms"
    weight: float = 1.0

    def check(self) -> None:
        """With no other loss beside it, a weight of 0 learns nothing."""
        check_positive("weight", self.weight)

    def term(self, sizes: Sizes) -> Term:
        """Nothing that learns."""
        return _Term(self)


@final
class _Term(Term):
    def __init__(self, method: Tent) -> None:
        super().__init__()
        self.method = method

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        target = step.target
        loss = entropies(target.outputs).mean() if len(target) else nothing(target)
        return {"entropy": self.method.weight * loss}
