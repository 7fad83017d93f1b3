"""BSP: DANN that keeps features from living in one direction."""

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
from ._spectrum import singular_values


def spectral_penalty(features: Tensor, directions: int) -> Tensor:
    """σ_1² + … + σ_k² of the batch's feature matrix: its largest singular values.

    Chen et al., Transferability vs. Discriminability: Batch Spectral Penalization for Adversarial Domain Adaptation,
    ICML 2019, section 4.2. features: (n, d) -> (), in squared units of features; it grows with n
    """
    return singular_values(features)[:directions].square().sum()


@METHODS.register("bsp")
@final
@dataclass(frozen=True, kw_only=True)
class BSP(TermMethod):
    """DANN, and a penalty on the directions that carry most of the features, so that the others still tell classes.

    Chen et al., Transferability vs. Discriminability: Batch Spectral Penalization for Adversarial Domain Adaptation,
    ICML 2019.

    weight: of the discriminator's loss. penalty: weight of the penalty on both domains. directions: singular values
    that are penalised, the largest ones. hidden_size: width of the discriminator's two hidden layers. schedule: of the
    strength with which its gradient is reversed, a name in STRENGTHS.
    """

    family: ClassVar[str] = "adversarial"
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label", "regression")
    weight: float = 1.0
    penalty: float = 1e-4
    directions: int = 1
    hidden_size: int = 256
    schedule: str = "sigmoid"

    def check(self) -> None:
        """Sizes and weights are positive; the schedule has to exist."""
        for name in ("weight", "penalty", "directions", "hidden_size"):
            check_positive(name, getattr(self, name))
        STRENGTHS.canonical(self.schedule)

    def term(self, sizes: Sizes) -> Term:
        """A discriminator of features."""
        return _Term(self, Discriminator(sizes.features, self.hidden_size))


@final
class _Term(Term):
    def __init__(self, method: BSP, discriminator: nn.Module) -> None:
        super().__init__()
        self.method, self.discriminator = method, discriminator

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        sides = [step.source.features, step.target.features]
        strength = STRENGTHS[self.method.schedule](step.progress)
        logits = self.discriminator(reverse_gradient(torch.cat(sides), strength))
        spectrum = sum((spectral_penalty(side, self.method.directions) for side in sides), start=logits.sum() * 0.0)
        return {
            "domain": self.method.weight * domain_loss(logits, len(step.source)),
            "spectrum": self.method.penalty * spectrum,
        }
