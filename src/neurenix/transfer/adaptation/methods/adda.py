"""ADDA: the target's features learn to pass for the source's."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from ....metrics import TaskKind
from ....models import PretrainedModel
from .._objective import ask
from ..method import METHODS, DomainStep, Side, Sizes, Term, TermMethod
from ._discriminator import Discriminator, domain_loss
from ._nothing import nothing
from ._settings import check_positive


def inverted_label_loss(logits: Tensor) -> Tensor:
    """Mean of −log σ(d) over the target: small where it is taken for the source.

    Tzeng et al., Adversarial Discriminative Domain Adaptation, CVPR 2017, equation 7. logits: (m,), above 0 for the
    source -> (), in nats
    """
    return functional.softplus(-logits).mean()


@METHODS.register("adda")
@final
@dataclass(frozen=True, kw_only=True)
class ADDA(TermMethod):
    """A discriminator learns to tell the domains apart, and the target's features learn to be taken for the source's.

    Tzeng et al., Adversarial Discriminative Domain Adaptation, CVPR 2017, equation 9. The source's encoder is a copy of
    the model as it began, which stays as it is, and so does the classifier. Made to fit one step: the discriminator's
    loss sees features without their graph, and the features' loss with inverted labels sees the discriminator's
    weights as constants, so that one backward pass gives each its own gradient. Beyond the paper, the labels of the
    source go on to hold the encoder that is trained to what it knew.

    weight: of the features' loss. hidden_size: width of the discriminator's two hidden layers.
    """

    family: ClassVar[str] = "adversarial"
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label", "regression")
    reads_inputs: ClassVar[str | None] = "the source's encoder, which stays as it was, reads them too"
    trains: ClassVar[str] = "body"
    weight: float = 0.1
    hidden_size: int = 256

    def check(self) -> None:
        """Weight and size are positive."""
        check_positive("weight", self.weight)
        check_positive("hidden_size", self.hidden_size)

    def term(self, sizes: Sizes) -> Term:
        """A discriminator of features."""
        return _Term(self, Discriminator(sizes.features, self.hidden_size))


@final
class _Term(Term):
    def __init__(self, method: ADDA, discriminator: nn.Module) -> None:
        super().__init__()
        self.method, self.discriminator = method, discriminator
        self._encoder: list[PretrainedModel] = []  # in a list: it is neither trained nor saved

    def begin(self, model: PretrainedModel) -> None:
        self._encoder = [copy.deepcopy(model).eval()]

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        source, target = self._stayed(step.source), step.target.features
        logits = self.discriminator(torch.cat([source, target]).detach())
        return {
            "domain": domain_loss(logits, len(source)),
            "mapping": self.method.weight * self._mapping(target) if len(target) else nothing(step.target),
        }

    @torch.no_grad()
    def _stayed(self, source: Side) -> Tensor:
        """Features of the source's samples by its own encoder."""
        return ask(self._encoder[0], source.inputs)[0] if len(source) else source.features

    def _mapping(self, target: Tensor) -> Tensor:
        constants = {name: tensor.detach() for name, tensor in self.discriminator.named_parameters()}
        return inverted_label_loss(functional_call(self.discriminator, constants, (target,)))
