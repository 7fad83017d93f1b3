"""A linear head solved in closed form as Gaussian classes of one covariance: linear discriminant analysis."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import LabelMismatchError


def discriminant_head(
    features: Tensor, targets: Tensor, num_classes: int, shrinkage: float | None = None
) -> tuple[Tensor, Tensor]:
    """Weight (k, d) and bias (k,) of log P(class | x), up to what all classes share, in float64.

    Fisher 1936; Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, 2009, eq. 4.10:
    δₖ(x) = xᵀ Σ⁻¹ μₖ - ½ μₖᵀ Σ⁻¹ μₖ + log πₖ, with Σ the mean squared deviation from the classes' means, shrunk.
    features: (n, d), targets: (n,) class numbers. shrinkage: see shrunk; None is that of ledoit_wolf.
    Raises LabelMismatchError for classes without a sample.
    """
    x, numbers = features.double(), targets.long()
    counts = torch.bincount(numbers, minlength=num_classes)
    if len(counts) > num_classes or bool((counts == 0).any()):
        raise LabelMismatchError(
            f"the classes have {counts.tolist()[:16]} samples, and the head tells {num_classes} apart; every class "
            "needs one at least."
        )
    means = functional.one_hot(numbers, num_classes).double().T @ x / counts.unsqueeze(1)
    deviations = x - means[numbers]
    covariance = deviations.T @ deviations / len(x)
    covariance = shrunk(covariance, ledoit_wolf(deviations) if shrinkage is None else shrinkage)
    weight = torch.linalg.lstsq(covariance, means.T).solution.T
    return weight, (counts / len(x)).log() - 0.5 * (weight * means).sum(1)


def shrunk(covariance: Tensor, shrinkage: float) -> Tensor:
    """(1 - s) Σ + s (tr Σ / d) I: towards equal variances in all directions. (d, d), s in 0..1 -> (d, d)."""
    size = len(covariance)
    mean = covariance.trace() / size
    return (1 - shrinkage) * covariance + shrinkage * mean * torch.eye(size, dtype=covariance.dtype)


def ledoit_wolf(deviations: Tensor) -> float:
    """The shrinkage with the least expected squared error of the covariance.

    Ledoit & Wolf, A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices, Journal of Multivariate
    Analysis 88 (2004), section 3.2. deviations: (n, d), of mean 0 -> in 0..1
    """
    samples, size = deviations.shape
    covariance = deviations.T @ deviations / samples
    total = covariance.square().sum()
    spread = float(total - covariance.trace().square() / size)  # d² of the paper, times the dimension
    error = float((deviations.square().sum(1).square().sum() / samples - total) / samples)  # b̄², likewise
    return min(max(error, 0.0), spread) / spread if spread > 0 else 1.0
