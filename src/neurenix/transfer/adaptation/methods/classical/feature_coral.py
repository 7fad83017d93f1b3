"""CORAL on features: the source gets the target's covariance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .....errors import ConfigurationError
from ...method import METHODS
from ._method import AdaptedFeatures, ClassicalMethod, LinearMap
from ._skada import adapter, fitted


@METHODS.register("feature_coral")
@final
@dataclass(frozen=True, kw_only=True)
class FeatureCORAL(ClassicalMethod):
    """(x - μ_s) C_s^-½ C_t^½ for the source, x - μ_t for the target: whitened by the one, coloured by the other.

    Sun, Feng & Saenko, Correlation Alignment for Unsupervised Domain Adaptation, 2017, equation 7; computed by skada.
    shrinkage: of both covariances, from 0 to 1; None is that of Ledoit & Wolf.
    """

    shrinkage: float | None = None

    def check(self) -> None:
        """The shrinkage is a share."""
        if self.shrinkage is not None and not 0 <= self.shrinkage <= 1:
            raise ConfigurationError(f"shrinkage={self.shrinkage}; it is a share from 0 to 1, or None.")

    def _adapted(self, source: Tensor, labels: Tensor, target: Tensor) -> AdaptedFeatures:
        chosen = adapter("CORALAdapter", reg="auto" if self.shrinkage is None else float(self.shrinkage))
        features = fitted(chosen, source, labels, target)
        centred = LinearMap(torch.eye(target.shape[1], dtype=torch.float64), -target.mean(0))
        return AdaptedFeatures(features, target_map=centred)
