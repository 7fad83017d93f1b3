"""Optimal transport: each source sample goes where the cheapest plan takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from .....errors import ConfigurationError
from ...method import METHODS
from ._costs import check_costs
from ._method import AdaptedFeatures, ClassicalMethod
from ._skada import adapter, fitted


@METHODS.register("transport", "emd_transport", "optimal_transport")
@final
@dataclass(frozen=True, kw_only=True)
class Transport(ClassicalMethod):
    """The plan of least cost between source and target samples; a source sample moves to the mean of where it goes.

    Courty, Flamary, Tuia & Rakotomamonjy, Optimal Transport for Domain Adaptation, PAMI 2017, equations 4 and 14;
    computed by POT through skada. costs: distance between samples, as SciPy calls it. scaling: of the costs, "median",
    "max", "log", "loglog" or None. max_iterations: of the solver.
    """

    costs: str = "sqeuclidean"
    scaling: str | None = None
    max_iterations: int = 100_000

    def check(self) -> None:
        """Names have to exist."""
        check_costs(self.costs, self.scaling)
        if self.max_iterations < 1:
            raise ConfigurationError(f"max_iterations={self.max_iterations}; it is at least 1.")

    def _adapted(self, source: Tensor, labels: Tensor, target: Tensor) -> AdaptedFeatures:
        chosen = adapter("OTMappingAdapter", metric=self.costs, norm=self.scaling, max_iter=self.max_iterations)
        return AdaptedFeatures(fitted(chosen, source, labels, target))
