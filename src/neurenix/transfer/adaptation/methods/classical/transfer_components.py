"""Transfer component analysis with a linear kernel: directions in which both domains vary and do not differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .....errors import ConfigurationError
from ...method import METHODS
from ._components import checked_components
from ._method import AdaptedFeatures, ClassicalMethod, LinearMap


@METHODS.register("transfer_components", "tca")
@final
@dataclass(frozen=True, kw_only=True)
class TransferComponents(ClassicalMethod):
    """Transfer component analysis: see transfer_directions. A linear kernel is one that a head can take up.

    components: directions that are kept; None for as many as there can be. smoothness: μ, against large weights.
    """

    components: int | None = None
    smoothness: float = 1.0

    def check(self) -> None:
        """Both have to be positive."""
        checked_components(self.components)
        if not self.smoothness > 0:
            raise ConfigurationError(f"smoothness={self.smoothness}; it is positive.")

    def _adapted(self, source: Tensor, labels: Tensor, target: Tensor) -> AdaptedFeatures:
        most = min(source.shape[1], len(source), len(target))
        directions = transfer_directions(source, target, checked_components(self.components, most), self.smoothness)
        found = LinearMap(directions.T, torch.zeros(directions.shape[1], dtype=torch.float64))
        return AdaptedFeatures(found(source), target_map=found)


def transfer_directions(source: Tensor, target: Tensor, components: int, smoothness: float) -> Tensor:
    """Directions in which the samples vary most while the means of the domains stay together.

    Pan, Tsang, Kwok & Yang, Domain Adaptation via Transfer Component Analysis, IEEE Transactions on Neural Networks
    2011, equation 8: the first eigenvectors of (K L K + μ I)⁻¹ K H K, here for K = X Xᵀ. With X = U S Rᵀ they lie in
    the span of U, so that the problem has as many unknowns as X has ranks, not samples; K times an eigenvector U a is
    X times R S a. Scaled so that all samples together have the variance 1 in each direction.
    source: (n, d), target: (m, d), float64 -> (d, components)
    """
    samples = torch.cat([source, target])
    n, m = len(source), len(target)
    left, lengths, right = torch.linalg.svd(samples, full_matrices=False)
    kept = lengths > lengths[0] * max(samples.shape) * torch.finfo(lengths.dtype).eps
    left, lengths, right = left[:, kept], lengths[kept], right[kept]
    signs = torch.cat([torch.full((n,), 1 / n), torch.full((m,), -1 / m)]).double()
    gap = lengths**2 * (left.T @ signs)  # K L K = gap gapᵀ in the basis U
    varied = torch.diag(lengths**4) - torch.outer(means := lengths**2 * left.sum(0), means) / (n + m)  # K H K
    lower = torch.linalg.cholesky(torch.outer(gap, gap) + smoothness * torch.eye(len(gap), dtype=gap.dtype))
    inverse = torch.linalg.inv(lower)
    _, vectors = torch.linalg.eigh(inverse @ varied @ inverse.T)
    chosen = inverse.T @ vectors.flip(1)[:, :components]
    directions = right.T @ (lengths.unsqueeze(1) * chosen)
    return directions / (samples @ directions).std(0, correction=0).clamp(min=torch.finfo(lengths.dtype).tiny)
