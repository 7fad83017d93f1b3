"""A linear head solved in closed form from features: ridge regression, its strength chosen by exact leave-one-out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_STRENGTHS = tuple(10.0**power for power in range(-3, 5))
_TEMPERATURES = tuple(2.0 ** (power / 2) for power in range(-4, 21))
_SMALLEST = 1e-150  # a length that can be divided by


@dataclass(frozen=True)
class ClosedFormHead:
    """weight: (k, d), bias: (k,), of logits or values; strength: the ridge penalty that was chosen.

    left_out: (n, k) what each sample gets from a head solved without it.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    left_out: Tensor


def classification_head(features: Tensor, targets: Tensor, num_classes: int) -> ClosedFormHead:
    """Ridge regression onto one-hot targets, scaled so that its leave-one-out predictions are good probabilities.

    Ridge scores lie between 0 and 1 and are no logits; the factor with the least leave-one-out cross-entropy
    makes them so. Where every left-out sample is right, that factor would be infinite and leave no gradient to
    learn from; m samples of a class support a certainty of (m + 1) / (m + 2) and no more (Platt, Probabilistic
    Outputs for Support Vector Machines, 1999, section 2.2).
    features: (n, d), targets: (n,) class numbers or (n, classes) shares.
    """
    shares = (targets if targets.ndim == 2 else functional.one_hot(targets.long(), num_classes)).double()
    head = ridge_head(features, shares)
    doubt = 1 / (len(targets) / num_classes + 2) * num_classes / max(1, num_classes - 1)
    losses = [
        functional.cross_entropy(factor * head.left_out, shares, label_smoothing=min(doubt, 1.0))
        for factor in _TEMPERATURES
    ]
    factor = _TEMPERATURES[int(torch.stack(losses).argmin())]
    return ClosedFormHead(factor * head.weight, factor * head.bias, head.strength, factor * head.left_out)


def multi_label_head(features: Tensor, targets: Tensor) -> ClosedFormHead:
    """Ridge regression onto 0 and 1 for each label, scaled as in classification_head, each label by its own factor.

    A score of one half, as far from 0 as from 1, becomes a logit of 0. Platt's certainties are those of each label:
    (p + 1) / (p + 2) for its p positives, 1 / (m + 2) for its m negatives. features: (n, d), targets: (n, labels).
    """
    labels = targets.double()
    head = ridge_head(features, labels)
    positives = labels.sum(0)
    sure = labels * (positives + 1) / (positives + 2) + (1 - labels) / (len(labels) - positives + 2)
    centred = head.left_out - 0.5
    losses = [
        functional.binary_cross_entropy_with_logits(factor * centred, sure, reduction="none").mean(0)
        for factor in _TEMPERATURES
    ]
    factors = torch.tensor(_TEMPERATURES, dtype=labels.dtype)[torch.stack(losses).argmin(0)]
    weight, bias = factors.unsqueeze(1) * head.weight, factors * (head.bias - 0.5)
    return ClosedFormHead(weight, bias, head.strength, factors * centred)


def ridge_head(features: Tensor, targets: Tensor) -> ClosedFormHead:
    """argmin_W ‖X W - Y‖² + s‖W‖² with a free intercept; s from a grid relative to the features' mean variance.

    The leave-one-out residual of a linear smoother is (y - ŷ) / (1 - h), h the diagonal of the hat matrix
    (Golub, Heath & Wahba, Technometrics 1979, eq. 1.3), so every s is scored exactly from one decomposition.
    Features that are the same for all samples tell nothing: the weight is zero and the bias the targets' mean.
    features: (n, d), targets: (n, k) -> weight (k, d), bias (k,), in float64
    """
    x, y = features.double(), targets.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    variances, directions = _principal_directions(x - x_mean)
    scores = (x - x_mean) @ directions  # (n, r)
    projected = scores.T @ (y - y_mean)
    scale = float(variances.mean()) or 1.0
    scored = [(*_leave_one_out(scores, variances, projected, y, y_mean, s * scale), s * scale) for s in _STRENGTHS]
    _, left_out, strength = min(scored, key=lambda entry: entry[0])
    weight = (directions @ (projected / (variances + strength).unsqueeze(1))).T
    return ClosedFormHead(weight, y_mean - weight @ x_mean, strength, left_out)


def _principal_directions(x: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values (r,) and right singular vectors (d, r) of X (n, d), r = min(n, d).

    From the smaller of X Xᵀ and Xᵀ X, several times as fast as from X itself. The digits of the smallest values that
    this costs in float64 lie far below the least strength.
    """
    if len(x) > x.shape[1]:
        squared, right = torch.linalg.eigh(x.T @ x)
        return squared.clamp(min=0), right
    squared, left = torch.linalg.eigh(x @ x.T)
    lengths = squared.clamp(min=float(squared[-1]) * torch.finfo(x.dtype).eps).sqrt().clamp(min=_SMALLEST)
    return squared.clamp(min=0), x.T @ left / lengths


def _leave_one_out(
    scores: Tensor, variances: Tensor, projected: Tensor, y: Tensor, y_mean: Tensor, strength: float
) -> tuple[float, Tensor]:
    """(mean squared leave-one-out error, leave-one-out predictions (n, k)) for one ridge strength."""
    shrink = 1 / (variances + strength)
    fitted = y_mean + scores @ (shrink.unsqueeze(1) * projected)
    leverage = ((scores**2) @ shrink + 1 / y.shape[0]).clamp(max=1 - 1e-9)
    residual = (y - fitted) / (1 - leverage).unsqueeze(1)
    return float((residual**2).mean()), y - residual
