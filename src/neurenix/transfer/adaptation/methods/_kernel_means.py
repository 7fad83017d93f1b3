"""Maximum mean discrepancy: how far apart two samples are for functions that a kernel spans."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from ....errors import ConfigurationError
from ..method import DomainStep, Side, Sizes, Term, TermMethod
from ._settings import check_one_of, check_positive

ESTIMATORS = ("unbiased", "biased")


@dataclass(frozen=True, kw_only=True)
class KernelMethod(TermMethod):
    """What methods share that make a kernel distance of the domains part of the loss; each says what is compared.

    weight: of the distance. bandwidths: of the features' Gaussian kernels, as multiples of the mean squared distance
    between features. estimator: "unbiased", or "biased", which is never below zero. Both look at all pairs of a batch:
    an estimate in linear time is noisier, and a batch is small beside the model.
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
        """The distance, which learns nothing by itself."""
        return _KernelTerm(self)

    @abc.abstractmethod
    def distance(self, source: Side, target: Side) -> Tensor:
        """How far the domains are apart in a batch, ()."""


@final
class _KernelTerm(Term):
    def __init__(self, method: KernelMethod) -> None:
        super().__init__()
        self.method = method

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        return {"discrepancy": self.method.weight * self.method.distance(step.source, step.target)}


def check_bandwidths(bandwidths: Sequence[float]) -> None:
    """Raise ConfigurationError unless there is one at least, and all are above 0."""
    if not bandwidths or not all(bandwidth > 0 for bandwidth in bandwidths):
        raise ConfigurationError(f"bandwidths={list(bandwidths)}; they are numbers above 0, one at least.")


def squared_distances(points: Tensor) -> Tensor:
    """||x_i − x_j||² of all pairs. (n, d) -> (n, n), zero on the diagonal."""
    centred = points - points.mean(0).detach()  # of points far from the origin large squares leave no digits
    squares = centred.square().sum(1)
    distances = (squares.unsqueeze(1) + squares.unsqueeze(0) - 2 * centred @ centred.T).clamp_min(0)
    return distances.masked_fill(torch.eye(len(points), dtype=torch.bool, device=points.device), 0.0)


def gaussian_kernels(points: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """Mean over bandwidths b of exp(−||x_i − x_j||² / (b · γ)), γ the mean squared distance between two points.

    Long et al., Learning Transferable Features with Deep Adaptation Networks, ICML 2015, section 3.1, with equal
    weights β. Their γ is a median, which is zero where most points coincide. γ is a constant to gradients.
    (n, d) -> (n, n)
    """
    distances = squared_distances(points)
    pairs = max(len(points) * (len(points) - 1), 1)
    unit = (distances.detach().sum() / pairs).clamp_min(torch.finfo(points.dtype).tiny)
    return torch.stack([torch.exp(-distances / (bandwidth * unit)) for bandwidth in bandwidths]).mean(0)


def mean_discrepancy(kernel: Tensor, sources: int, estimator: str = "unbiased") -> Tensor:
    """MMD² = E k(s, s') + E k(t, t') − 2 E k(s, t).

    Gretton et al., A Kernel Two-Sample Test, JMLR 2012. "unbiased", equation 3: pairs of one sample with itself are
    left out, so that its mean is zero for equal distributions, and a batch may give less. "biased", equation 5: with
    them, at least zero, and zero for equal samples. kernel: (n + m, n + m), the source's n = `sources` rows first
    -> (), zero where a domain has too few samples: one, or none where biased.
    """
    source, target, between = kernel[:sources, :sources], kernel[sources:, sources:], kernel[:sources, sources:]
    if min(len(source), len(target)) < (2 if estimator == "unbiased" else 1):
        return kernel.sum() * 0.0
    within = _mean_of_others if estimator == "unbiased" else torch.mean
    return within(source) + within(target) - 2 * between.mean()


def _mean_of_others(kernel: Tensor) -> Tensor:
    count = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1))
