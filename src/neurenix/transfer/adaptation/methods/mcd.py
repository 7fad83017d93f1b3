"""MCD: features of the target on which two classifiers agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from ....errors import ConfigurationError
from ....models import PretrainedModel
from ....nn import reverse_gradient
from ...heads._starts import last_linear
from ..method import METHODS, DomainStep, Side, Sizes, Term, TermMethod
from ..strength import STRENGTHS
from ._information import marginal_entropy
from ._nothing import nothing
from ._settings import check_at_least_zero, check_positive


def classifier_discrepancy(first: Tensor, second: Tensor) -> Tensor:
    """Mean over samples and classes of |p₁ − p₂|.

    Saito et al., Maximum Classifier Discrepancy for Unsupervised Domain Adaptation, CVPR 2018, section 3.
    first, second: logits (n, k) -> (), in [0, 2 / k]
    """
    return (first.softmax(1) - second.softmax(1)).abs().mean()


@METHODS.register("mcd")
@final
@dataclass(frozen=True, kw_only=True)
class MCD(TermMethod):
    """Two classifiers learn the source's labels and to disagree on the target; the features learn that they agree.

    Saito et al., Maximum Classifier Discrepancy for Unsupervised Domain Adaptation, CVPR 2018. The paper alternates
    three steps; here they are one, by gradient reversal: both classifiers maximise the discrepancy while the features
    minimise it, with as much strength as the schedule says. The first classifier is the model's last layer, the second
    is trained beside it from random weights. Two classifiers agree on one class for all too: beyond the paper, the
    entropy of their mean answers p̄ is held up, where the authors' code for VisDA subtracts 0.01/k Σ log p̄.

    weight: of the discrepancy. balance: of that entropy; 0 where the target's classes are not about as frequent as each
    other. schedule: of the strength with which its gradient is reversed, a name in STRENGTHS.
    Raises ConfigurationError where the model's head ends in no linear layer of its classes.
    """

    family: ClassVar[str] = "adversarial"
    weight: float = 1.0
    balance: float = 0.3
    schedule: str = "sigmoid"

    def check(self) -> None:
        """The weight is positive, the balance not negative; the schedule has to exist."""
        check_positive("weight", self.weight)
        check_at_least_zero("balance", self.balance)
        STRENGTHS.canonical(self.schedule)

    def term(self, sizes: Sizes) -> Term:
        """A second classifier."""
        return _Term(self, sizes)


@final
class _Term(Term):
    """first: weights of the model's last layer, (k, d), as they are in this step."""

    first: Tensor

    def __init__(self, method: MCD, sizes: Sizes) -> None:
        super().__init__()
        self.method = method
        self.second = nn.Linear(sizes.features, sizes.outputs)
        self.register_buffer("first", torch.zeros(sizes.outputs, sizes.features))

    def begin(self, model: PretrainedModel) -> None:
        self._copy_first(model)

    def end_step(self, model: PretrainedModel) -> None:
        self._copy_first(model)

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        source, target = step.source, step.target
        parts = {"second_classifier": nothing(source), "discrepancy": nothing(target)}
        if len(source):
            assert source.targets is not None
            parts["second_classifier"] = step.compare(self.second(source.features), source.targets)
        if len(target):
            strength = STRENGTHS[self.method.schedule](step.progress)
            first = _reversed_below(target.outputs, target.features, self.first, strength)
            second = self.second(reverse_gradient(target.features, strength))
            parts["discrepancy"] = -self.method.weight * classifier_discrepancy(first, second)
            if self.method.balance:
                parts["balance"] = -self.method.balance * self._spread(target)
        return parts

    def _spread(self, target: Side) -> Tensor:
        """Entropy of each classifier's mean answer, both added up; neither gradient is reversed."""
        return marginal_entropy(target.outputs) + marginal_entropy(self.second(target.features))

    @torch.no_grad()
    def _copy_first(self, model: PretrainedModel) -> None:
        layer = last_linear(model.head)
        if layer is None or layer.weight.shape != self.first.shape:
            found = "has none" if layer is None else f"has {tuple(layer.weight.shape)} weights"
            raise ConfigurationError(
                f"MCD needs a head that ends in a linear layer from {self.first.shape[1]} features to "
                f"{self.first.shape[0]} classes, and this one {found}; take MDD, which asks nothing of the head."
            )
        self.first.copy_(layer.weight)


def _reversed_below(outputs: Tensor, features: Tensor, weight: Tensor, strength: float) -> Tensor:
    """The outputs, whose gradient reaches the last layer as it is and the features times −strength.

    The features' own share is Wᵀg, so −(1 + strength) Wᵀg is added, on values that are zero.
    """
    zero = (features - features.detach()) @ weight.T
    return outputs - (1 + strength) * zero
