"""Optimal transport that keeps classes together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from .....errors import ConfigurationError
from ...method import METHODS
from ._costs import check_costs, checked_arrivals, median_cost
from ._method import AdaptedFeatures, ClassicalMethod
from ._skada import adapter, fitted

_REGULARISERS = ("lpl1", "l1l2")


@METHODS.register("class_transport")
@final
@dataclass(frozen=True, kw_only=True)
class ClassTransport(ClassicalMethod):
    """As SinkhornTransport, and each target sample is reached from one class of the source.

    Courty, Flamary, Tuia & Rakotomamonjy, PAMI 2017, equation 9, sections 4.1 and 4.2; computed by POT through skada.
    smoothing: weight of the entropy. class_weight: weight of the classes. regulariser: "lpl1" or "l1l2". costs: see
    Transport. scaling: "median", to which the weights then are relative, or None.
    """

    smoothing: float = 0.1
    class_weight: float = 0.01
    regulariser: str = "lpl1"
    costs: str = "sqeuclidean"
    scaling: str | None = "median"
    max_iterations: int = 10
    max_inner_iterations: int = 200
    tolerance: float = 1e-8

    def check(self) -> None:
        """Names have to exist."""
        check_costs(self.costs, strength=self.smoothing)
        if self.scaling not in (None, "median"):
            raise ConfigurationError(f"scaling={self.scaling!r}; possible: None, median.")
        if self.regulariser not in _REGULARISERS:
            raise ConfigurationError(f"regulariser={self.regulariser!r}; possible: {', '.join(_REGULARISERS)}.")

    def _adapted(self, source: Tensor, labels: Tensor, target: Tensor) -> AdaptedFeatures:
        unit = 1.0 if self.scaling is None else median_cost(source, target, self.costs)
        chosen = adapter(
            "ClassRegularizerOTMappingAdapter",
            reg_e=self.smoothing * unit,  # the same plan as that of scaled costs
            reg_cl=self.class_weight * unit,
            norm=self.regulariser,
            metric=self.costs,
            max_iter=self.max_iterations,
            max_inner_iter=self.max_inner_iterations,
            tol=self.tolerance,
        )
        return AdaptedFeatures(checked_arrivals(type(self).__name__, fitted(chosen, source, labels, target)))
