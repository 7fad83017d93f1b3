"""Weights by two Gaussians: how probable a source sample is in the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .....errors import ConfigurationError
from ...method import METHODS
from ._method import AdaptedFeatures, ClassicalMethod
from ._skada import adapter, fit, of_mean_one


@METHODS.register("gaussian_ratio")
@final
@dataclass(frozen=True, kw_only=True)
class GaussianRatio(ClassicalMethod):
    """w(x) = N(x; μ_t, C_t) / N(x; μ_s, C_s).

    Shimodaira, Improving Predictive Inference under Covariate Shift by Weighting the Log-Likelihood Function, Journal
    of Statistical Planning and Inference 2000, section 2, with Gaussian densities: of their logarithms, since densities
    themselves are 0 in many dimensions. Means and covariances by skada.
    shrinkage: of both covariances, from 0 to 1; None is that of Ledoit & Wolf.
    """

    shrinkage: float | None = None

    def check(self) -> None:
        """The shrinkage is a share."""
        if self.shrinkage is not None and not 0 <= self.shrinkage <= 1:
            raise ConfigurationError(f"shrinkage={self.shrinkage}; it is a share from 0 to 1, or None.")

    def _adapted(self, source: Tensor, labels: Tensor, target: Tensor) -> AdaptedFeatures:
        chosen = adapter("GaussianReweightAdapter", reg="auto" if self.shrinkage is None else float(self.shrinkage))
        fit(chosen, source, labels, target)
        parts = {name: torch.from_numpy(getattr(chosen, name)) for name in _PARTS}
        there = _log_density(source, parts["mean_target_"], parts["cov_target_"])
        here = _log_density(source, parts["mean_source_"], parts["cov_source_"])
        return AdaptedFeatures(source, weights=of_mean_one(((there - here) - (there - here).max()).exp()))


_PARTS = ("mean_source_", "cov_source_", "mean_target_", "cov_target_")


def _log_density(samples: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Logarithm of the Gaussian's density, (n, d) -> (n,)."""
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(samples)
