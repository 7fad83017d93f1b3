"""The one place where a linear head is solved on adapted features, and folded back onto the model's own."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor

from ..... import packages
from .....errors import LabelMismatchError
from ._method import AdaptedFeatures, ClassicalMethod


def adapted_head(
    method: ClassicalMethod,
    source: Tensor,
    labels: Tensor,
    target: Tensor,
    num_classes: int,
    strength: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Weight (k, d) and bias (k,), float64, of a head for the target's features as the model gives them.

    source: (n, d), labels: (n,) class numbers, target: (m, d). strength: see logistic_head.
    Raises what adapt_features raises, and LabelMismatchError where a class has no sample.
    """
    adapted = method.adapt_features(source, labels, target)
    weight, bias = logistic_head(adapted.source, labels, num_classes, adapted.weights, strength)
    return folded(weight, bias, adapted)


def logistic_head(
    features: Tensor, labels: Tensor, num_classes: int, weights: Tensor | None = None, strength: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Argmin Σ wᵢ · -log P(yᵢ | xᵢ) + s/2 ‖W‖², a multinomial logistic regression by scikit-learn.

    features: (n, d), labels: (n,), weights: (n,), strength: s -> weight (k, d), bias (k,) of logits, float64
    """
    counts = torch.bincount(labels.long(), minlength=num_classes)
    if len(counts) > num_classes or bool((counts == 0).any()):
        raise LabelMismatchError(
            f"the classes have {counts.tolist()[:16]} samples, and the head tells {num_classes} apart; every class "
            "needs one at least."
        )
    linear = packages.require("sklearn.linear_model", purpose="solving a head", install="scikit-learn")
    solver = linear.LogisticRegression(C=1 / strength, max_iter=5000, tol=1e-7)
    solver.fit(features.numpy(), labels.numpy(), sample_weight=None if weights is None else weights.numpy())
    weight, bias = (torch.from_numpy(numpy.asarray(part)) for part in (solver.coef_, solver.intercept_))
    if num_classes == 2:  # one logit against none: the same probabilities as two of half of it
        return torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return weight, bias


def folded(weight: Tensor, bias: Tensor, adapted: AdaptedFeatures) -> tuple[Tensor, Tensor]:
    """W (A x + c) + b = (W A) x + (W c + b): the head takes up the map of the target. Weight (k, d), bias (k,)."""
    if adapted.target_map is None:
        return weight, bias
    return weight @ adapted.target_map.matrix, bias + weight @ adapted.target_map.offset
