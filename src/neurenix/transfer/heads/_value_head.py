"""What heads of values share that bring their loss: layers in units of the targets' spread, and that spread."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from ...nn import Solvable, build_head
from ._linear_part import is_linear
from ._scaling import TargetScaling
from ._vector_task_head import VectorTaskHead, value_columns


class ValueHead(VectorTaskHead, Solvable):
    """Gives several numbers for each of num_outputs values.

    scaled: (n, feature_size) -> (n, numbers) in units of the targets' spread. scaling: brings them to the targets' own.
    """

    task: ClassVar[str] = "regression"

    def __init__(
        self, feature_size: int, num_outputs: int, numbers: int, hidden_sizes: list[int], dropout_rate: float
    ) -> None:
        super().__init__()
        self.scaled: nn.Module = build_head(
            feature_size, num_outputs * numbers, hidden_sizes=hidden_sizes, dropout_rate=dropout_rate
        )
        self.scaling = TargetScaling(num_outputs)

    @property
    def num_outputs(self) -> int:
        """Values per sample."""
        return len(self.scaling.mean)

    def check_targets(self, targets: Any) -> None:
        """As many values as the head gives."""
        value_columns(targets, self.num_outputs)

    @property
    def is_solvable(self) -> bool:
        """Without hidden layers."""
        return is_linear(self.scaled)
