"""Weights of classes, for a target in which some are more frequent than in the source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from .....errors import ConfigurationError
from ...method import METHODS
from ._method import AdaptedFeatures, ClassicalMethod
from ._skada import adapter, weights_of


@METHODS.register("target_shift")
@final
@dataclass(frozen=True, kw_only=True)
class TargetShift(ClassicalMethod):
    """One weight for each class, under which the source's mean, in a kernel's space, is the target's.

    Zhang, Schölkopf, Muandet & Wang, Domain Adaptation under Target and Conditional Shift, ICML 2013, equation 6;
    computed by skada. gamma: of the Gaussian kernel; None is 1 / features. ridge: in the inverse of the labels' kernel.
    """

    gamma: float | None = None
    ridge: float = 1e-6
    max_iterations: int = 1000

    def check(self) -> None:
        """All are positive."""
        if (self.gamma is not None and not self.gamma > 0) or not self.ridge > 0:
            raise ConfigurationError(f"gamma={self.gamma}, ridge={self.ridge}; both are positive.")

    def _adapted(self, source: Tensor, labels: Tensor, target: Tensor) -> AdaptedFeatures:
        gamma = 1 / source.shape[1] if self.gamma is None else self.gamma
        chosen = adapter("MMDTarSReweightAdapter", gamma=gamma, reg=self.ridge, max_iter=self.max_iterations)
        return AdaptedFeatures(source, weights=weights_of(chosen, source, labels, target))
