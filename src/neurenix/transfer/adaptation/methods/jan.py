"""JAN: features and predictions whose joint distribution is the same in both domains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from ..method import METHODS, DomainStep, Side, Sizes, Term, TermMethod
from ._kernel_means import ESTIMATORS, check_bandwidths, gaussian_kernels, mean_discrepancy, squared_distances
from ._settings import check_one_of, check_positive

PROBABILITY_BANDWIDTH = 1.68  # of the authors' code; squared distances between probabilities are at most 2


def joint_discrepancy(
    source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], bandwidths: list[float], estimator: str = "unbiased"
) -> Tensor:
    """JMMD²: MMD² under the product of a kernel of features and one of probabilities.

    Long et al., Deep Transfer Learning with Joint Adaptation Networks, ICML 2017, section 4.1. The kernel of features
    is that of DAN; that of probabilities is exp(−||p − q||² / 1.68). source: features (n, d) and logits (n, k), target:
    (m, d) and (m, k) -> ()
    """
    features = torch.cat([source[0], target[0]])
    probabilities = torch.cat([source[1], target[1]]).softmax(1)
    kernel = gaussian_kernels(features, bandwidths) * torch.exp(
        -squared_distances(probabilities) / PROBABILITY_BANDWIDTH
    )
    return mean_discrepancy(kernel, len(source[0]), estimator)


@METHODS.register("jan")
@final
@dataclass(frozen=True, kw_only=True)
class JAN(TermMethod):
    """The kernel distance between the domains' features together with what is predicted of them is part of the loss.

    Long et al., Deep Transfer Learning with Joint Adaptation Networks, ICML 2017, equation 9.

    weight: of the distance. bandwidths: of the features' Gaussian kernels, as multiples of the mean squared distance
    between features. estimator: "unbiased" or "biased", as in DAN.
    """

    family: ClassVar[str] = "alignment"
    weight: float = 1.0
    bandwidths: list[float] = field(default_factory=lambda: [0.25, 0.5, 1.0, 2.0, 4.0])
    estimator: str = "unbiased"

    def check(self) -> None:
        """Weight and bandwidths are positive; the estimator has to exist."""
        check_positive("weight", self.weight)
        check_bandwidths(self.bandwidths)
        check_one_of("estimator", self.estimator, ESTIMATORS)

    def term(self, sizes: Sizes) -> Term:
        """The distance between features with their predictions."""
        return _Term(self)


@final
class _Term(Term):
    def __init__(self, method: JAN) -> None:
        super().__init__()
        self.method = method

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        source, target = _layers(step.source), _layers(step.target)
        distance = joint_discrepancy(source, target, self.method.bandwidths, self.method.estimator)
        return {"discrepancy": self.method.weight * distance}


def _layers(side: Side) -> tuple[Tensor, Tensor]:
    return side.features, side.outputs
