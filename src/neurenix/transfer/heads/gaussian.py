"""A value and how sure it is: mean and variance of a normal distribution for each sample."""

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

_LEAST = 1e-4  # variance, in squared standard deviations of the targets


def gaussian_loss(mean: Tensor, variance: Tensor, targets: Tensor, beta: float) -> Tensor:
    """Mean of ½ (log σ² + (y - μ)² / σ²), each sample weighted by σ^2β, which takes no gradient.

    β = 0 is the negative log-likelihood without its constant ½ log 2π, under which samples that are badly predicted are
    given a large variance and then hardly learnt from; β = 1 learns the mean as squared errors do.
    Seitzer, Tavakoli, Antic & Martius, On the Pitfalls of Heteroscedastic Uncertainty Estimation, ICLR 2022, eq. 5.
    mean, variance, targets: (n, k) -> ()
    """
    losses = 0.5 * (variance.log() + (targets - mean).square() / variance)
    return (losses * variance.detach().pow(beta)).mean()


@HEADS.register("gaussian", "heteroscedastic")
@final
@dataclass(frozen=True, kw_only=True)
class Gaussian(HeadKind):
    """Mean and variance of each value, in the targets' units, by the β-weighted likelihood.

    num_outputs: values per sample. beta: β of gaussian_loss, 0.5 as its authors recommend; 0 for the plain likelihood.
    units, hidden_sizes, dropout_rate: see Regression.
    start: "default", or "closed_form": ridge regression, with the variance of its leave-one-out errors.
    predict gives the means, predict_sd the standard deviations.
    """

    num_outputs: int = 1
    beta: float = 0.5
    units: list[str] = field(default_factory=list)
    hidden_sizes: list[int] = field(default_factory=list)
    dropout_rate: float = 0.0
    start: str = "default"

    task: ClassVar[TaskKind | None] = "regression"
    loss: ClassVar[str] = OWN
    starts: ClassVar[tuple[str, ...]] = ("default", "closed_form")

    def check(self) -> None:
        """β is a share."""
        if not 0 <= self.beta <= 1:
            raise ConfigurationError(f"beta={self.beta}; it is at least 0 and at most 1.")
        check_units(self.units, self.num_outputs)
        check_is_linear(self.start, self.hidden_sizes)

    def build(self, backbone: Backbone) -> nn.Module:
        """The head."""
        return GaussianHead(backbone.feature_size, self.num_outputs, self.beta, self.hidden_sizes, self.dropout_rate)


@final
class GaussianHead(ValueHead):
    """(n, feature_size) -> (n, 2, num_outputs): means and standard deviations in the targets' units. See Gaussian."""

    def __init__(
        self, feature_size: int, num_outputs: int, beta: float, hidden_sizes: list[int], dropout_rate: float
    ) -> None:
        super().__init__(feature_size, num_outputs, 2, hidden_sizes, dropout_rate)
        self._arguments = (beta, hidden_sizes, dropout_rate)
        self._size, self._beta = feature_size, beta

    def compute(self, features: Tensor) -> Tensor:
        """Means and standard deviations."""
        mean, variance = self._scaled(features)
        return torch.stack([self.scaling(mean), self.scaling.sd * variance.sqrt()], 1)

    def answers(self, features: Any, inputs: Any) -> Tensor:
        """The means: (n,) of one value, (n, num_outputs) of several."""
        return self.assessed(features, inputs, None).squeeze(1)

    def assessed(self, features: Any, inputs: Any, targets: Any) -> Tensor:
        """The means, (n, num_outputs)."""
        both: Tensor = self(features, inputs)
        return both[:, 0]

    def sd(self, features: Any, inputs: Any) -> Tensor:
        """The standard deviations: (n,) of one value, (n, num_outputs) of several."""
        both: Tensor = self(features, inputs)
        return both[:, 1].squeeze(1)

    def losses(self, features: Any, inputs: Any, targets: Any) -> dict[str, Tensor]:
        """targets: (n,) or (n, num_outputs). Of targets in units of their spread."""
        with torch.autocast(features.device.type, enabled=False):
            mean, variance = self._scaled(features.to(self.scaling.sd.dtype))
        columns = self.scaling.scaled(value_columns(targets, self.num_outputs))
        return {"likelihood": gaussian_loss(mean, variance, columns, self._beta)}

    def for_classes(self, num_outputs: int) -> Self:
        """The same for another number of values."""
        return type(self)(self._size, num_outputs, *self._arguments)

    def solve(self, features: Tensor, targets: Tensor) -> None:
        """Ridge regression for the means; one variance for all samples, that of its errors."""
        columns = scaled_columns(self.scaling, targets)
        solved = ridge_head(features, columns)
        variance = (columns - solved.left_out).square().mean(0).clamp(min=2 * _LEAST) - _LEAST
        weight = torch.cat([solved.weight, torch.zeros_like(solved.weight)])
        set_linear(self.scaled, weight, torch.cat([solved.bias, variance.expm1().log()]))

    def _scaled(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (n, values) in units of the targets' spread."""
        mean, raw = self.scaled(features).chunk(2, 1)
        return mean, functional.softplus(raw) + _LEAST
