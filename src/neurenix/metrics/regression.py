"""Metrics of regression: pure functions of predictions and targets, (n, k) in float64, mean over k outputs.

They look at the whole sample at once. Running sums, as torchmetrics keeps them, lose the digits that matter
when the targets' mean is far from 0, and its R2 takes residuals below 1e-4 for a perfect fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._metric import ORDINAL, REGRESSION, metric
from ._task import TaskKind

if TYPE_CHECKING:
    import torchmetrics

    from ._accumulators import Score

_INFINITY = float("inf")


@metric("mse", "mean_squared_error", tasks=REGRESSION + ORDINAL, higher_is_better=False, range=(0.0, _INFINITY))
def mse(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Mean squared error."""
    return _whole(mean_squared_error)


@metric("rmse", "root_mean_squared_error", tasks=REGRESSION + ORDINAL, higher_is_better=False, range=(0.0, _INFINITY))
def rmse(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Root of the mean squared error, per output."""
    return _whole(root_mean_squared_error)


@metric("mae", "mean_absolute_error", tasks=REGRESSION + ORDINAL, higher_is_better=False, range=(0.0, _INFINITY))
def mae(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Mean absolute error."""
    return _whole(mean_absolute_error)


@metric("r2", "r2_score", tasks=REGRESSION, range=(-_INFINITY, 1.0))
def r2(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Share of the targets' variance that is explained, against predicting their mean."""
    return _whole(coefficient_of_determination)


@metric("explained_variance", tasks=REGRESSION, range=(-_INFINITY, 1.0))
def explained_variance(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Like r2, but a constant offset of the predictions is forgiven."""
    return _whole(explained_share_of_variance)


@metric("pearson", "pearson_corrcoef", tasks=REGRESSION, range=(-1.0, 1.0))
def pearson(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Linear correlation of predictions and targets."""
    return _whole(linear_correlation)


@metric("spearman", "spearman_corrcoef", tasks=REGRESSION + ORDINAL, range=(-1.0, 1.0))
def spearman(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Linear correlation of the ranks of predictions and targets."""
    return _whole(rank_correlation)


def mean_squared_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean of (prediction - target)², in squared target units. (n, k), (n, k) -> ()."""
    return (predictions - targets).square().mean()


def root_mean_squared_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean over outputs of the root of the mean squared error, in target units. (n, k), (n, k) -> ()."""
    return (predictions - targets).square().mean(0).sqrt().mean()


def mean_absolute_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean of |prediction - target|, in target units. (n, k), (n, k) -> ()."""
    return (predictions - targets).abs().mean()


def coefficient_of_determination(predictions: Tensor, targets: Tensor) -> Tensor:
    """1 - residual / total sum of squares; NaN for targets that are all equal. (n, k), (n, k) -> ()."""
    residual = (predictions - targets).square().sum(0)
    return (1 - _ratio(residual, _centred(targets).square().sum(0))).mean()


def explained_share_of_variance(predictions: Tensor, targets: Tensor) -> Tensor:
    """1 - variance of the residual / variance of the targets; NaN for equal targets. (n, k), (n, k) -> ()."""
    residual = _centred(predictions - targets).square().sum(0)
    return (1 - _ratio(residual, _centred(targets).square().sum(0))).mean()


def linear_correlation(predictions: Tensor, targets: Tensor) -> Tensor:
    """Pearson's r; NaN where one side is constant. (n, k), (n, k) -> (), in -1..1."""
    first, second = _unit(predictions), _unit(targets)
    return (first * second).sum(0).clamp(-1, 1).mean()


def rank_correlation(predictions: Tensor, targets: Tensor) -> Tensor:
    """Spearman's rho: Pearson's r of the ranks, equal values sharing theirs. (n, k), (n, k) -> ()."""
    return linear_correlation(ranks(predictions), ranks(targets))


def ranks(values: Tensor) -> Tensor:
    """Rank from 1 within each column, equal values sharing their mean rank. (n, k) -> (n, k)."""
    return torch.stack([_column_ranks(column) for column in values.unbind(1)], dim=1)


def _column_ranks(column: Tensor) -> Tensor:
    column = column.contiguous()
    ordered = column.sort().values
    first = torch.searchsorted(ordered, column)  # how many are smaller
    last = torch.searchsorted(ordered, column, right=True)  # how many are not larger
    return (first + last + 1).to(column.dtype) / 2


def _centred(values: Tensor) -> Tensor:
    """Values minus their column mean; exactly 0 for equal values, whose mean may be off by rounding."""
    constant = (values == values[:1]).all(0)
    return torch.where(constant, 0.0, values - values.mean(0))


def _unit(values: Tensor) -> Tensor:
    centred = _centred(values)
    return _ratio(centred, centred.norm(dim=0))


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """The quotient; NaN, never infinity, where `below` is 0."""
    return torch.where(below == 0, torch.nan, above / below)


def _whole(score: Score) -> torchmetrics.Metric:
    from ._accumulators import WholeSample

    return WholeSample(score)
