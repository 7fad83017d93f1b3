"""MDD: features on which a second classifier cannot agree in the source and disagree in the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ....nn import reverse_gradient
from ..method import METHODS, DomainStep, Sizes, Term, TermMethod
from ..strength import STRENGTHS
from ._nothing import nothing
from ._settings import check_positive


def source_disparity(adversary: Tensor, predicted: Tensor) -> Tensor:
    """Mean of −log σ_ŷ(f'): how far the adversary is from the classifier's answers ŷ.

    Zhang et al., Bridging Theory and Algorithm for Domain Adaptation, ICML 2019, section 5. adversary: logits (n, k),
    predicted: (n,) class numbers -> (), in nats
    """
    return functional.cross_entropy(adversary, predicted)


def target_disparity(adversary: Tensor, predicted: Tensor) -> Tensor:
    """Mean of −log(1 − σ_ŷ(f')): how far the adversary is from any other answer than the classifier's ŷ.

    The same paper, equation 29: its loss for the target, which has large gradients where log σ has none, as in GANs.
    adversary: logits (n, k), predicted: (n,) class numbers -> (), in nats
    """
    others = adversary.scatter(1, predicted.unsqueeze(1), -torch.inf)
    return (adversary.logsumexp(1) - others.logsumexp(1)).mean()


@METHODS.register("mdd")
@final
@dataclass(frozen=True, kw_only=True)
class MDD(TermMethod):
    """An adversary learns to answer as the classifier in the source and not in the target; features learn it cannot.

    Zhang et al., Bridging Theory and Algorithm for Domain Adaptation, ICML 2019, equation 30. The adversary minimises
    γ · source_disparity + target_disparity, whose gradient is reversed for the features; the classifier sees none of
    it.

    weight: of the adversary's loss. reversal: how much of its gradient the features get at most, 0.1 as in the authors'
    library: with more they learn to confuse the adversary before they know the classes. margin: γ, the factor of the
    source's part; log γ is the margin ρ of the theory. hidden_size: of the adversary's hidden layer. schedule: of the
    strength with which the gradient is reversed, a name in STRENGTHS.
    """

    family: ClassVar[str] = "adversarial"
    weight: float = 1.0
    reversal: float = 0.1
    margin: float = 4.0
    hidden_size: int = 256
    schedule: str = "sigmoid"

    def check(self) -> None:
        """Sizes, weights and margin are positive; the schedule has to exist."""
        for name in ("weight", "reversal", "margin", "hidden_size"):
            check_positive(name, getattr(self, name))
        STRENGTHS.canonical(self.schedule)

    def term(self, sizes: Sizes) -> Term:
        """An adversary with one hidden layer."""
        layers = nn.Linear(sizes.features, self.hidden_size), nn.ReLU(), nn.Linear(self.hidden_size, sizes.outputs)
        return _Term(self, nn.Sequential(*layers))


@final
class _Term(Term):
    def __init__(self, method: MDD, adversary: nn.Module) -> None:
        super().__init__()
        self.method, self.adversary = method, adversary

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        if not len(step.source) or not len(step.target):
            return {"disparity": nothing(step.source) + nothing(step.target)}
        strength = self.method.reversal * STRENGTHS[self.method.schedule](step.progress)
        source, target = (
            (self.adversary(reverse_gradient(side.features, strength)), side.outputs.argmax(1))
            for side in (step.source, step.target)
        )
        disparity = self.method.margin * source_disparity(*source) + target_disparity(*target)
        return {"disparity": self.method.weight * disparity}
