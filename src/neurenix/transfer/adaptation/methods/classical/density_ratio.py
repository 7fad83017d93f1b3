"""Weights by a classifier of domains: source samples that look like the target's count more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy
import torch
from torch import Tensor

from ..... import packages
from .....errors import ConfigurationError
from ...method import METHODS
from ._method import AdaptedFeatures, ClassicalMethod
from ._skada import of_mean_one


@METHODS.register("density_ratio")
@final
@dataclass(frozen=True, kw_only=True)
class DensityRatio(ClassicalMethod):
    """w(x) = p_t(x) / p_s(x) = n/m · P(target | x) / P(source | x), by a logistic regression on the features.

    Bickel, Brückner & Scheffer, Discriminative Learning under Covariate Shift, JMLR 2009, section 4; Sugiyama, Suzuki &
    Kanamori, Density Ratio Estimation, 2012, section 4.2. strength: of its ridge penalty, on standardised features.
    (skada's DiscriminatorReweight is the inverse of this ratio, and is not used.)
    """

    strength: float = 1.0

    def check(self) -> None:
        """The strength is positive."""
        if not self.strength > 0:
            raise ConfigurationError(f"strength={self.strength}; it is positive.")

    def _adapted(self, source: Tensor, labels: Tensor, target: Tensor) -> AdaptedFeatures:
        linear = packages.require("sklearn.linear_model", purpose="a classifier of domains", install="scikit-learn")
        features = torch.cat([source, target])
        standard = ((features - features.mean(0)) / features.std(0).clamp(min=torch.finfo(torch.float64).tiny)).numpy()
        domains = numpy.arange(len(features)) >= len(source)
        fitted = linear.LogisticRegression(C=1 / self.strength, max_iter=5000).fit(standard, domains)
        logits = torch.from_numpy(fitted.decision_function(standard[: len(source)]))
        weights = (logits - logits.max()).exp()  # the largest is 1: only ratios count
        return AdaptedFeatures(source, weights=of_mean_one(weights))
