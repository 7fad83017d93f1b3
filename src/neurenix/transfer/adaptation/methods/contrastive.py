"""Contrastive: two views of a sample have similar features, and other samples' features are unlike them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ....metrics import TaskKind
from ..method import METHODS, DomainStep, Side, Sizes, Term, TermMethod
from ._aside import AsideTerm
from ._nothing import nothing
from ._settings import check_at_least_zero, check_one_of, check_positive
from ._views import strong_view

_DOMAINS = ("both", "target")


@METHODS.register("contrastive", "simclr")
@final
@dataclass(frozen=True, kw_only=True)
class Contrastive(TermMethod):
    """Two random views of each sample are found among the views of the batch, by a small network on the features.

    Chen et al., A Simple Framework for Contrastive Learning of Visual Representations (SimCLR), ICML 2020, equation 1.
    Images are moved, turned, recoloured and partly covered; vectors and series get noise; of texts some tokens are
    hidden, beside the model's own dropout (Gao et al., SimCSE, EMNLP 2021). Domains are contrasted apart, so that
    telling them apart does not help.

    weight: of the loss. temperature: of the similarities. size: of the vectors that are compared. domains: "both" or
    "target". mirror: whether an image may be mirrored, which letters and digits may not.
    """

    family: ClassVar[str] = "self_supervised"
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label", "regression")
    reads_inputs: ClassVar[str | None] = "two views are made of the samples themselves"
    weight: float = 1.0
    temperature: float = 0.2
    size: int = 64
    domains: str = "both"
    mirror: bool = False

    def check(self) -> None:
        """The temperature and the size are positive."""
        check_at_least_zero("weight", self.weight)
        check_positive("temperature", self.temperature)
        check_positive("size", self.size)
        check_one_of("domains", self.domains, _DOMAINS)

    def term(self, sizes: Sizes) -> Term:
        """The network with one hidden layer that stands between features and comparison (section 4.2 there)."""
        wide = sizes.features
        return _Term(self, nn.Sequential(nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, self.size)))


@final
class _Term(AsideTerm):
    def __init__(self, method: Contrastive, projection: nn.Module) -> None:
        super().__init__()
        self.method, self.projection = method, projection

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        losses = [self._loss(side, step, domain) for domain, side in self.sides(step, self.method.domains)]
        loss = torch.stack(losses).mean() if losses else nothing(step.target)
        return {"contrastive": self.method.weight * loss}

    def _loss(self, side: Side, step: DomainStep, domain: str) -> Tensor:
        first, second = (
            self.projection(self.ask_aside(step, strong_view(side.inputs, self.method.mirror), domain)[0])
            for _ in range(2)
        )
        return nt_xent(first, second, self.method.temperature)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """−log of the share that a view's partner has among all other views: exp(cos / τ) over the sum of exp(cos / τ).

    Chen et al., SimCLR, ICML 2020, equation 1, mean over both views of each sample, in nats. first, second: (n, d),
    views of the same samples in the same order -> (); 0 for one sample alone, log(2n − 1) where all are alike.
    """
    views = functional.normalize(torch.cat([first, second]), dim=1)
    alike = views @ views.T / temperature
    alike = alike.masked_fill(torch.eye(len(views), dtype=torch.bool, device=views.device), -torch.inf)
    partners = torch.arange(len(views), device=views.device).roll(len(first))
    return functional.cross_entropy(alike, partners)
