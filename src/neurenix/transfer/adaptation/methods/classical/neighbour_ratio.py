"""Weights by neighbours: how many target samples have a source sample as their nearest one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .....errors import ConfigurationError
from ...method import METHODS
from ._method import AdaptedFeatures, ClassicalMethod
from ._skada import of_mean_one


@METHODS.register("neighbour_ratio", "neighbor_ratio")
@final
@dataclass(frozen=True, kw_only=True)
class NeighbourRatio(ClassicalMethod):
    """w(x) = how many target samples have x among their nearest source samples.

    Loog, Nearest Neighbor-Based Importance Weighting, MLSP 2012, section 3. neighbours: of each
    target sample. add_one: to every weight, so that no source sample counts for nothing.
    """

    neighbours: int = 1
    add_one: bool = False

    def check(self) -> None:
        """At least one neighbour."""
        if self.neighbours < 1:
            raise ConfigurationError(f"neighbours={self.neighbours}; it is at least 1.")

    def _adapted(self, source: Tensor, labels: Tensor, target: Tensor) -> AdaptedFeatures:
        count = min(self.neighbours, len(source))
        nearest = torch.cdist(target, source).topk(count, largest=False).indices
        weights = torch.bincount(nearest.flatten(), minlength=len(source)) + int(self.add_one)
        return AdaptedFeatures(source, weights=of_mean_one(weights.double()))
