"""DANN: features from which a network cannot tell the domains apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from ....metrics import TaskKind
from ....nn import reverse_gradient
from ..method import METHODS, DomainStep, Sizes, Term, TermMethod
from ..strength import STRENGTHS
from ._discriminator import Discriminator, domain_loss
from ._settings import check_positive


@METHODS.register("dann")
@final
@dataclass(frozen=True, kw_only=True)
class DANN(TermMethod):
    """A discriminator learns to tell the domains apart, and the features learn that it cannot.

    Ganin et al., Domain-Adversarial Training of Neural Networks, JMLR 2016, equation 9.

    weight: of the discriminator's loss. hidden_size: width of its two hidden layers. schedule: of the strength with
    which its gradient is reversed, a name in STRENGTHS.
    """

    family: ClassVar[str] = "adversarial"
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label", "regression")
    weight: float = 1.0
    hidden_size: int = 256
    schedule: str = "sigmoid"

    def check(self) -> None:
        """Weight and size are positive; the schedule has to exist."""
        check_positive("weight", self.weight)
        check_positive("hidden_size", self.hidden_size)
        STRENGTHS.canonical(self.schedule)

    def term(self, sizes: Sizes) -> Term:
        """A discriminator of features."""
        return _Term(self, Discriminator(sizes.features, self.hidden_size))


@final
class _Term(Term):
    def __init__(self, method: DANN, discriminator: nn.Module) -> None:
        super().__init__()
        self.method, self.discriminator = method, discriminator

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        strength = STRENGTHS[self.method.schedule](step.progress)
        features = torch.cat([step.source.features, step.target.features])
        logits = self.discriminator(reverse_gradient(features, strength))
        return {"domain": self.method.weight * domain_loss(logits, len(step.source))}
