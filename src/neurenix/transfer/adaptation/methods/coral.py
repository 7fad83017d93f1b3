"""Deep CORAL: features with the same covariance in both domains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ....metrics import TaskKind
from ..method import METHODS, DomainStep, Sizes, Term, TermMethod
from ._settings import check_positive


def covariance_gap(source: Tensor, target: Tensor) -> Tensor:
    """||C_s − C_t||²_F / (4 d²), with the covariances C of the features.

    Sun & Saenko, Deep CORAL, ECCV workshops 2016, equation 1. source: (n, d), target: (m, d) -> (), in fourth powers of
    the features' unit. Zero where a domain has fewer than two samples, which have no covariance.
    """
    if min(len(source), len(target)) < 2:
        return (source.sum() + target.sum()) * 0.0
    gap = torch.atleast_2d(torch.cov(source.T)) - torch.atleast_2d(torch.cov(target.T))
    return gap.square().sum() / (4 * source.shape[1] ** 2)


def mean_gap(source: Tensor, target: Tensor) -> Tensor:
    """||μ_s − μ_t||² / d, which covariances do not see. source: (n, d), target: (m, d) -> (), zero without samples."""
    if min(len(source), len(target)) < 1:
        return (source.sum() + target.sum()) * 0.0
    return (source.mean(0) - target.mean(0)).square().mean()


@METHODS.register("deep_coral", "coral")
@final
@dataclass(frozen=True, kw_only=True)
class DeepCORAL(TermMethod):
    """The distance between the covariances of the domains' features is part of the loss.

    Sun & Saenko, Deep CORAL: Correlation Alignment for Deep Domain Adaptation, ECCV workshops 2016, equations 1 and 6.

    weight: of the distance, which is small: it is divided by the square of the number of features. means: whether the
    distance of the means is added, with the same weight. The paper's loss leaves it out, and then says nothing of a
    domain that is only shifted.
    """

    family: ClassVar[str] = "alignment"
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label", "regression")
    weight: float = 1.0
    means: bool = False

    def check(self) -> None:
        """The weight is positive."""
        check_positive("weight", self.weight)

    def term(self, sizes: Sizes) -> Term:
        """The distance between covariances."""
        return _Term(self)


@final
class _Term(Term):
    def __init__(self, method: DeepCORAL) -> None:
        super().__init__()
        self.method = method

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        source, target = step.source.features, step.target.features
        parts = {"covariance": self.method.weight * covariance_gap(source, target)}
        if self.method.means:
            parts["means"] = self.method.weight * mean_gap(source, target)
        return parts
