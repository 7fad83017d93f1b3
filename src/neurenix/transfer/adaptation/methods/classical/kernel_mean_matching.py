"""Kernel mean matching: weights under which the source's mean, in a kernel's space, is the target's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from .....errors import ConfigurationError
from ...method import METHODS
from ._method import AdaptedFeatures, ClassicalMethod
from ._skada import adapter, weights_of


@METHODS.register("kernel_mean_matching", "kmm")
@final
@dataclass(frozen=True, kw_only=True)
class KernelMeanMatching(ClassicalMethod):
    """argmin_w ½ wᵀ K w - κᵀ w under 0 ≤ w ≤ B, a quadratic programme.

    Huang, Gretton, Borgwardt, Schölkopf & Smola, Correcting Sample Selection Bias by Unlabeled Data, NIPS 2006,
    equation 5; computed by skada. gamma: of the Gaussian kernel; None is 1 / features. largest: B, the most that a
    sample counts.
    """

    gamma: float | None = None
    largest: float = 1000.0
    max_iterations: int = 1000

    def check(self) -> None:
        """All are positive."""
        if (self.gamma is not None and not self.gamma > 0) or not self.largest > 0:
            raise ConfigurationError(f"gamma={self.gamma}, largest={self.largest}; both are positive.")

    def _adapted(self, source: Tensor, labels: Tensor, target: Tensor) -> AdaptedFeatures:
        chosen = adapter(
            "KMMReweightAdapter", gamma=self.gamma, B=self.largest, max_iter=self.max_iterations, kernel="rbf"
        )
        return AdaptedFeatures(source, weights=weights_of(chosen, source, labels, target))
