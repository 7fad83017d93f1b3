"""Subspace alignment: the source's principal directions are turned into the target's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ...method import METHODS
from ._components import checked_components
from ._method import AdaptedFeatures, ClassicalMethod, LinearMap
from ._skada import adapter, fitted


@METHODS.register("subspace_alignment")
@final
@dataclass(frozen=True, kw_only=True)
class SubspaceAlignment(ClassicalMethod):
    """(x - μ_s) P_s P_sᵀ P_t for the source and (x - μ_t) P_t for the target, P the principal directions.

    Fernando, Habrard, Sebban & Tuytelaars, Unsupervised Visual Domain Adaptation Using Subspace Alignment, ICCV 2013,
    equations 1 to 3; computed by skada. components: directions that are kept; None for as many as there can be.
    """

    components: int | None = None

    def check(self) -> None:
        """At least one."""
        checked_components(self.components)

    def _adapted(self, source: Tensor, labels: Tensor, target: Tensor) -> AdaptedFeatures:
        most = min(source.shape[1], len(source), len(target))
        chosen = adapter(
            "SubspaceAlignmentAdapter", n_components=checked_components(self.components, most), random_state=0
        )
        features = fitted(chosen, source, labels, target)
        matrix = torch.from_numpy(chosen.pca_target_.components_)
        return AdaptedFeatures(features, target_map=LinearMap(matrix, -matrix @ target.mean(0)))
