"""The optimal transport between two Gaussians, which is linear: Monge's map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy
import torch
from torch import Tensor

from .....errors import ConfigurationError, NonFiniteError
from ...method import METHODS
from ._method import AdaptedFeatures, ClassicalMethod
from ._skada import adapter, fitted

_LEAST, _SHARE = 1e-8, 1e-3
_FLAT = 1e-6  # of the mean variance: a direction with less has none, but for rounding


@METHODS.register("linear_transport", "monge")
@final
@dataclass(frozen=True, kw_only=True)
class LinearTransport(ClassicalMethod):
    """A (x - μ_s) + μ_t with A = C_s^-½ (C_s^½ C_t C_s^½)^½ C_s^-½: mean and covariance become the target's.

    Flamary, Lounici & Ferrari, Concentration Bounds for Linear Monge Mapping Estimation and Optimal Transport Domain
    Adaptation, 2019, equation 2; computed by POT through skada. ridge: added to the variances; None is 1e-8, and where
    some directions of a domain have no variance, of too few samples or of features that are always the same or vary
    together, a thousandth of the mean one.
    """

    ridge: float | None = None

    def check(self) -> None:
        """The ridge is not negative."""
        if self.ridge is not None and self.ridge < 0:
            raise ConfigurationError(f"ridge={self.ridge}; it is 0, a small positive number, or None.")

    def _adapted(self, source: Tensor, labels: Tensor, target: Tensor) -> AdaptedFeatures:
        ridge = self._ridge(source, target)
        try:
            with numpy.errstate(invalid="ignore"):  # is told below
                adapted = fitted(adapter("LinearOTMappingAdapter", reg=ridge, bias=True), source, labels, target)
        except ValueError as error:  # of roots of covariances that rounding left below 0
            raise NonFiniteError(
                f"ridge={ridge} is too small for features of which some directions have no variance; give a larger "
                "one, or None."
            ) from error
        return AdaptedFeatures(adapted)

    def _ridge(self, source: Tensor, target: Tensor) -> float:
        if self.ridge is not None:
            return self.ridge
        mean = float(torch.cat([source.var(0), target.var(0)]).mean())
        least = min(float(torch.linalg.eigvalsh(torch.atleast_2d(domain.T.cov()))[0]) for domain in (source, target))
        return _LEAST if least > _FLAT * mean else _SHARE * mean
