"""DAN: features whose means are equal for every smooth function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from ....metrics import TaskKind
from ..method import METHODS, DomainStep, Sizes, Term, TermMethod
from ._kernel_means import ESTIMATORS, check_bandwidths, gaussian_kernels, mean_discrepancy
from ._settings import check_one_of, check_positive


def kernel_discrepancy(source: Tensor, target: Tensor, bandwidths: list[float], estimator: str = "unbiased") -> Tensor:
    """MK-MMD²: squared distance of the domains' mean embeddings under a mixture of Gaussian kernels.

    Long et al., DAN, ICML 2015, equations 1 and 2; see gaussian_kernels and mean_discrepancy. source: (n, d), target:
    (m, d) -> ()
    """
    return mean_discrepancy(gaussian_kernels(torch.cat([source, target]), bandwidths), len(source), estimator)


@METHODS.register("dan", "mmd")
@final
@dataclass(frozen=True, kw_only=True)
class DAN(TermMethod):
    """The kernel distance between the domains' features is part of the loss.

    Long et al., Learning Transferable Features with Deep Adaptation Networks, ICML 2015, equation 4, on one layer.

    weight: of the distance. bandwidths: of the Gaussian kernels, as multiples of the mean squared distance between
    features. estimator: "unbiased" is the paper's choice, "biased" is never below zero. Both look at all pairs of a
    batch: the paper's estimate in linear time is noisier, and a batch is small beside the model.
    """

    family: ClassVar[str] = "alignment"
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label", "regression")
    weight: float = 1.0
    bandwidths: list[float] = field(default_factory=lambda: [0.25, 0.5, 1.0, 2.0, 4.0])
    estimator: str = "unbiased"

    def check(self) -> None:
        """Weight and bandwidths are positive; the estimator has to exist."""
        check_positive("weight", self.weight)
        check_bandwidths(self.bandwidths)
        check_one_of("estimator", self.estimator, ESTIMATORS)

    def term(self, sizes: Sizes) -> Term:
        """The distance between features."""
        return _Term(self)


@final
class _Term(Term):
    def __init__(self, method: DAN) -> None:
        super().__init__()
        self.method = method

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        distance = kernel_discrepancy(
            step.source.features, step.target.features, self.method.bandwidths, self.method.estimator
        )
        return {"discrepancy": self.method.weight * distance}
