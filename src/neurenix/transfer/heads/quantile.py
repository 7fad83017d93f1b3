"""Quantiles of a value: not one answer, but how likely it is to lie below each of several."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigurationError
from ...metrics import TaskKind
from ...training import ridge_head
from ._backbone import Backbone
from ._kind import HEADS, OWN, HeadKind
from ._linear_part import check_is_linear, scaled_columns, set_linear
from ._units import check_units
from ._value_head import ValueHead
from ._vector_task_head import value_columns

_NARROWEST = 1e-3  # a gap between two quantiles that a solved head begins with, in standard deviations


def pinball_loss(quantiles: Tensor, targets: Tensor, levels: Tensor) -> Tensor:
    """Mean of max(τ (y - q), (τ - 1)(y - q)). Koenker & Bassett, Regression Quantiles, Econometrica 1978, eq. 3.1.

    quantiles: (n, k, levels), targets: (n, k), levels: (levels,) in (0, 1) -> (), in the targets' unit
    """
    gap = targets.unsqueeze(-1) - quantiles
    return torch.maximum(levels * gap, (levels - 1) * gap).mean()


def ordered(first: Tensor, gaps: Tensor) -> Tensor:
    """The lowest quantile and, above it, gaps that are positive by a softplus, so that quantiles cannot cross.

    first: (n, k, 1), gaps: (n, k, levels - 1) -> (n, k, levels), rising
    """
    return torch.cat([first, first + functional.softplus(gaps).cumsum(-1)], -1)


@HEADS.register("quantile", "quantiles")
@final
@dataclass(frozen=True, kw_only=True)
class Quantile(HeadKind):
    """Several quantiles of each value by the pinball loss, in the targets' units, rising by construction.

    num_outputs: values per sample. levels: shares of the targets that shall lie below, rising, e.g. [0.05, 0.5, 0.95].
    units, dropout_rate: see Regression. hidden_sizes: widths of hidden layers.
    start: "default", or "closed_form": ridge regression, and around it the quantiles of its leave-one-out errors.
    predict gives (n, levels) for one value, (n, num_outputs, levels) for several; metrics are those of the level that
    is closest to one half.
    """

    num_outputs: int = 1
    levels: list[float] = field(default_factory=lambda: [0.1, 0.5, 0.9])
    units: list[str] = field(default_factory=list)
    hidden_sizes: list[int] = field(default_factory=list)
    dropout_rate: float = 0.0
    start: str = "default"

    task: ClassVar[TaskKind | None] = "regression"
    loss: ClassVar[str] = OWN
    starts: ClassVar[tuple[str, ...]] = ("default", "closed_form")

    def check(self) -> None:
        """Levels rise between 0 and 1."""
        rising = all(low < high for low, high in zip(self.levels, self.levels[1:], strict=False))
        if not self.levels or not rising or self.levels[0] <= 0 or self.levels[-1] >= 1:
            raise ConfigurationError(f"levels={self.levels}; they rise, above 0 and below 1: [0.1, 0.5, 0.9].")
        check_units(self.units, self.num_outputs)
        check_is_linear(self.start, self.hidden_sizes)

    def build(self, backbone: Backbone) -> nn.Module:
        """The head."""
        return QuantileHead(backbone.feature_size, self.num_outputs, self.levels, self.hidden_sizes, self.dropout_rate)


@final
class QuantileHead(ValueHead):
    """(n, feature_size) -> quantiles (n, num_outputs, levels) in the targets' units. See Quantile."""

    levels: Tensor

    def __init__(
        self, feature_size: int, num_outputs: int, levels: list[float], hidden_sizes: list[int], dropout_rate: float
    ) -> None:
        super().__init__(feature_size, num_outputs, len(levels), hidden_sizes, dropout_rate)
        self._arguments = (feature_size, levels, hidden_sizes, dropout_rate)
        self.register_buffer("levels", torch.tensor(levels))

    def compute(self, features: Tensor) -> Tensor:
        """Quantiles."""
        quantiles = self._in_units_of_spread(features)
        return self.scaling.mean.unsqueeze(1) + self.scaling.sd.unsqueeze(1) * quantiles

    def answers(self, features: Any, inputs: Any) -> Tensor:
        """(n, levels) for one value, (n, num_outputs, levels) for several."""
        quantiles: Tensor = self(features, inputs)
        return quantiles.squeeze(1)

    def assessed(self, features: Any, inputs: Any, targets: Any) -> Tensor:
        """The quantile of the level closest to one half, (n, num_outputs)."""
        quantiles: Tensor = self(features, inputs)
        return quantiles[..., int((self.levels - 0.5).abs().argmin())]

    def losses(self, features: Any, inputs: Any, targets: Any) -> dict[str, Tensor]:
        """targets: (n,) or (n, num_outputs). In standard deviations of the training targets."""
        with torch.autocast(features.device.type, enabled=False):
            quantiles = self._in_units_of_spread(features.to(self.levels.dtype))
        columns = self.scaling.scaled(value_columns(targets, self.num_outputs))
        return {"pinball": pinball_loss(quantiles, columns, self.levels)}

    def for_classes(self, num_outputs: int) -> Self:
        """The same for another number of values."""
        feature_size, levels, hidden_sizes, dropout_rate = self._arguments
        return type(self)(feature_size, num_outputs, levels, hidden_sizes, dropout_rate)

    def solve(self, features: Tensor, targets: Tensor) -> None:
        """Ridge regression for the lowest level; the gaps above it are those of its errors, alike for all samples."""
        columns = scaled_columns(self.scaling, targets)
        solved = ridge_head(features, columns)
        errors = (columns - solved.left_out).quantile(self.levels.cpu().double(), dim=0).T  # (values, levels)
        gaps = errors.diff(dim=1).clamp(min=_NARROWEST)
        bias = torch.cat([solved.bias.unsqueeze(1) + errors[:, :1], gaps.expm1().log()], 1)  # softplus undone
        weight = torch.zeros(*errors.shape, features.shape[1], dtype=errors.dtype)
        weight[:, 0] = solved.weight
        set_linear(self.scaled, weight.flatten(0, 1), bias.flatten())

    def _in_units_of_spread(self, features: Tensor) -> Tensor:
        raw = self.scaled(features).unflatten(1, (self.num_outputs, len(self.levels)))
        return ordered(raw[..., :1], raw[..., 1:])
