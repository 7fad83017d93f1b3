"""AFN: features of larger norm, in both domains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ....errors import ConfigurationError
from ....metrics import TaskKind
from ..method import METHODS, DomainStep, Side, Sizes, Term, TermMethod
from ._nothing import nothing
from ._settings import check_one_of, check_positive

WAYS = ("stepwise", "hard")


def stepwise_norm_gap(features: Tensor, growth: float, most: float | Tensor = math.inf) -> Tensor:
    """Mean of (||f|| − (||f||₀ + Δr))², where ||f||₀ is ||f|| as a constant: always Δr², with a gradient of −2 Δr.

    Xu et al., Larger Norm More Transferable: An Adaptive Feature Norm Approach for Unsupervised Domain Adaptation, ICCV
    2019, stepwise AFN. No norm is asked to be more than `most`, and one that is gets 0.
    features: (n, d) -> (), in squared units of features
    """
    norms = features.norm(dim=1)
    now = norms.detach()
    return (norms - torch.maximum(now, (now + growth).clamp(max=most))).square().mean()


def hard_norm_gap(features: Tensor, radius: float) -> Tensor:
    """(mean ||f|| − R)². The same paper, hard AFN. features: (n, d) -> (), in squared units of features"""
    return (features.norm(dim=1).mean() - radius).square()


@METHODS.register("afn")
@final
@dataclass(frozen=True, kw_only=True)
class AFN(TermMethod):
    """The norms of both domains' features are made larger, as those of the target are too small for a source's model.

    Xu et al., Larger Norm More Transferable: An Adaptive Feature Norm Approach for Unsupervised Domain Adaptation, ICCV
    2019.

    way: "stepwise", every norm is to grow by `growth`, or "hard", the mean norm of each domain is to be `radius`; both
    in units of features. times: norms stop growing at so many times the source's mean norm in the first step. The
    paper's steps have no end: with plain gradient descent they are small, but Adam takes even a small push at full
    speed, and the source is unlearned (docs/log.md). weight: of the squared difference.
    """

    family: ClassVar[str] = "alignment"
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label")
    way: str = "stepwise"
    growth: float = 1.0
    times: float = 3.0
    radius: float = 25.0
    weight: float = 0.05

    def check(self) -> None:
        """Sizes and weight are positive, there is room to grow, and the way exists."""
        check_one_of("way", self.way, WAYS)
        for name in ("growth", "radius", "weight"):
            check_positive(name, getattr(self, name))
        if not self.times > 1:
            raise ConfigurationError(f"times={self.times}; norms grow to so many times what they were, more than 1.")

    def term(self, sizes: Sizes) -> Term:
        """What the norms lack."""
        return _Term(self)


@final
class _Term(Term):
    """first: mean norm of features in the first step, the source's where it had any; 0 before it."""

    first: Tensor

    def __init__(self, method: AFN) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("first", torch.zeros(()))

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        side = step.source if len(step.source) else step.target
        norm = side.features.detach().float().norm(dim=1).mean()
        self.first = torch.where(self.first > 0, self.first, norm)  # a GPU is not asked which
        return {"norms": self.method.weight * (self._gap(step.source) + self._gap(step.target))}

    def _gap(self, side: Side) -> Tensor:
        if not len(side):
            return nothing(side)
        if self.method.way == "hard":
            return hard_norm_gap(side.features, self.method.radius)
        return stepwise_norm_gap(side.features, self.method.growth, self.method.times * self.first)
