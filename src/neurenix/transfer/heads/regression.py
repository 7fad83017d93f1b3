"""Values, in the targets' own units, learnt in units of their spread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import Tensor, nn

from ...metrics import TaskKind
from ...nn import Solvable, VectorHead, build_head
from ...training import ridge_head
from ._backbone import Backbone
from ._kind import HEADS, HeadKind
from ._linear_part import check_is_linear, is_linear, scaled_columns, set_linear
from ._scaling import TargetScaling
from ._starts import zeroed
from ._units import check_units


@HEADS.register("regression")
@final
@dataclass(frozen=True, kw_only=True)
class Regression(HeadKind):
    """mean + sd · (W x + b), with mean and standard deviation of the first fit's training targets.

    Answers and metrics are in the targets' units; the losses mse, mae and huber compare in standard deviations, so that
    learning rates mean the same for metres and for millimetres, and several values count alike.

    num_outputs: values per sample.
    units: of each value, for those who read the answers: ["mm", "years"]; none where they are not known.
    hidden_sizes: widths of hidden layers; none for a linear head. dropout_rate: before each linear layer.
    start: "default", "zero" (the mean is answered at first), "closed_form" (of a linear head).
    """

    num_outputs: int
    units: list[str] = field(default_factory=list)
    hidden_sizes: list[int] = field(default_factory=list)
    dropout_rate: float = 0.0
    start: str = "default"

    task: ClassVar[TaskKind | None] = "regression"
    loss: ClassVar[str] = "mse"
    starts: ClassVar[tuple[str, ...]] = ("default", "zero", "closed_form")

    def check(self) -> None:
        """A unit for each value; the closed form is that of one layer."""
        check_units(self.units, self.num_outputs)
        check_is_linear(self.start, self.hidden_sizes)

    def build(self, backbone: Backbone) -> nn.Module:
        """The head."""
        scaled = build_head(
            backbone.feature_size, self.num_outputs, hidden_sizes=self.hidden_sizes, dropout_rate=self.dropout_rate
        )
        return RegressionHead(zeroed(scaled) if self.start == "zero" else scaled, self.num_outputs)


@final
class RegressionHead(VectorHead, Solvable):
    """(n, feature_size) -> values (n, num_outputs) in the targets' units. See Regression."""

    def __init__(self, scaled: nn.Module, num_outputs: int) -> None:
        super().__init__()
        self.scaled, self.scaling = scaled, TargetScaling(num_outputs)

    @property
    def num_outputs(self) -> int:
        """Values per sample."""
        return len(self.scaling.mean)

    def forward(self, features: Tensor) -> Tensor:
        """Values."""
        values: Tensor = self.scaling(self.scaled(features))
        return values

    def target_sd(self) -> Tensor:
        """Standard deviation of the training targets."""
        return self.scaling.sd

    @property
    def is_solvable(self) -> bool:
        """Without hidden layers."""
        return is_linear(self.scaled)

    def solve(self, features: Tensor, targets: Tensor) -> None:
        """Ridge regression onto scaled targets. targets: (n,) or (n, values)."""
        solved = ridge_head(features, scaled_columns(self.scaling, targets))
        set_linear(self.scaled, solved.weight, solved.bias)
