"""CDAN: DANN whose discriminator also sees what is predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from ....nn import reverse_gradient
from ..method import METHODS, DomainStep, Sizes, Term, TermMethod
from ..strength import STRENGTHS
from ._discriminator import Discriminator, domain_loss
from ._information import entropies
from ._settings import check_positive


def multilinear_map(features: Tensor, probabilities: Tensor) -> Tensor:
    """T⊗(f, g) = f ⊗ g, all products of a feature with a probability.

    Long et al., CDAN, NeurIPS 2018, section 3.2. features: (n, d), probabilities: (n, k) -> (n, d·k)
    """
    return (features.unsqueeze(2) * probabilities.unsqueeze(1)).flatten(1)


def random_multilinear_map(features: Tensor, probabilities: Tensor, maps: tuple[Tensor, Tensor]) -> Tensor:
    """T⊙(f, g) = (R_f f) ⊙ (R_g g) / √s, whose inner products are on average those of T⊗.

    The same section. features: (n, d), probabilities: (n, k), maps: (d, s) and (k, s) of standard normal numbers
    -> (n, s)
    """
    of_features, of_probabilities = maps
    return (features @ of_features) * (probabilities @ of_probabilities) / of_features.shape[1] ** 0.5


def certainty_weights(logits: Tensor) -> Tensor:
    """w(H) = 1 + exp(−H), H in nats: from 2 for a sure prediction towards 1. The same paper, section 3.3 (CDAN+E).

    (n, k) -> (n,)
    """
    return 1 + torch.exp(-entropies(logits))


@METHODS.register("cdan")
@final
@dataclass(frozen=True, kw_only=True)
class CDAN(TermMethod):
    """A discriminator tells the domains apart by features and predictions together; the features learn that it cannot.

    Long et al., Conditional Adversarial Domain Adaptation, NeurIPS 2018, section 3.3. No gradient goes through
    predictions and weights, as in the authors' later library; in the paper's own code one goes through the weights.

    entropy: whether samples of which the model is sure count more (CDAN+E). weight: of the discriminator's loss.
    hidden_size: width of its two hidden layers. map_size: where features times classes are more, the discriminator sees
    their random map of that size instead. schedule: of the strength with which its gradient is reversed, a name in
    STRENGTHS.
    """

    family: ClassVar[str] = "adversarial"
    entropy: bool = True
    weight: float = 1.0
    hidden_size: int = 256
    map_size: int = 4096
    schedule: str = "sigmoid"

    def check(self) -> None:
        """Sizes and weight are positive; the schedule has to exist."""
        for name in ("weight", "hidden_size", "map_size"):
            check_positive(name, getattr(self, name))
        STRENGTHS.canonical(self.schedule)

    def term(self, sizes: Sizes) -> Term:
        """A discriminator of features with predictions."""
        return _Term(self, sizes)


@final
class _Term(Term):
    maps: Tensor

    def __init__(self, method: CDAN, sizes: Sizes) -> None:
        super().__init__()
        products = sizes.features * sizes.outputs
        is_random = products > method.map_size
        self.method, self._features = method, sizes.features
        rows = sizes.features + sizes.outputs if is_random else 0
        self.register_buffer("maps", torch.randn(rows, method.map_size if is_random else 0))
        self.discriminator: nn.Module = Discriminator(method.map_size if is_random else products, method.hidden_size)

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        strength = STRENGTHS[self.method.schedule](step.progress)
        features = reverse_gradient(torch.cat([step.source.features, step.target.features]), strength)
        logits = torch.cat([step.source.outputs, step.target.outputs]).detach()
        weights = certainty_weights(logits) if self.method.entropy else None
        domains = self.discriminator(self._joined(features, logits.softmax(1)))
        return {"domain": self.method.weight * domain_loss(domains, len(step.source), weights)}

    def _joined(self, features: Tensor, probabilities: Tensor) -> Tensor:
        if not len(self.maps):
            return multilinear_map(features, probabilities)
        return random_multilinear_map(
            features, probabilities, (self.maps[: self._features], self.maps[self._features :])
        )
