"""Optimal transport with an entropy term: every source sample goes to many places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from ...method import METHODS
from ._costs import check_costs, checked_arrivals
from ._method import AdaptedFeatures, ClassicalMethod
from ._skada import adapter, fitted


@METHODS.register("sinkhorn_transport")
@final
@dataclass(frozen=True, kw_only=True)
class SinkhornTransport(ClassicalMethod):
    """As Transport, with a plan that is spread out by its entropy: faster, and steadier where samples are few.

    Courty, Flamary, Tuia & Rakotomamonjy, PAMI 2017, equation 6; computed by POT through skada. smoothing: weight of
    the entropy beside the costs. costs, scaling: see Transport; without scaling the smoothing has to be as large as
    usual costs.
    """

    smoothing: float = 0.1
    costs: str = "sqeuclidean"
    scaling: str | None = "median"
    max_iterations: int = 1000
    tolerance: float = 1e-8

    def check(self) -> None:
        """Names have to exist."""
        check_costs(self.costs, self.scaling, self.smoothing)

    def _adapted(self, source: Tensor, labels: Tensor, target: Tensor) -> AdaptedFeatures:
        chosen = adapter(
            "EntropicOTMappingAdapter",
            reg_e=self.smoothing,
            metric=self.costs,
            norm=self.scaling,
            max_iter=self.max_iterations,
            tol=self.tolerance,
        )
        return AdaptedFeatures(checked_arrivals(type(self).__name__, fitted(chosen, source, labels, target)))
