"""The optimal transport between two Gaussians, which is linear: Monge's map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from .....errors import ConfigurationError
from ...method import METHODS
from ._method import AdaptedFeatures, ClassicalMethod
from ._skada import adapter, fitted


@METHODS.register("linear_transport", "monge")
@final
@dataclass(frozen=True, kw_only=True)
class LinearTransport(ClassicalMethod):
    """A (x - μ_s) + μ_t with A = C_s^-½ (C_s^½ C_t C_s^½)^½ C_s^-½: mean and covariance become the target's.

    Flamary, Lounici & Ferrari, Concentration Bounds for Linear Monge Mapping Estimation and Optimal Transport Domain
    Adaptation, 2019, equation 2; computed by POT through skada. ridge: added to the variances.
    """

    ridge: float = 1e-8

    def check(self) -> None:
        """The ridge is not negative."""
        if self.ridge < 0:
            raise ConfigurationError(f"ridge={self.ridge}; it is 0 or a small positive number.")

    def _adapted(self, source: Tensor, labels: Tensor, target: Tensor) -> AdaptedFeatures:
        chosen = adapter("LinearOTMappingAdapter", reg=self.ridge, bias=True)
        return AdaptedFeatures(fitted(chosen, source, labels, target))
