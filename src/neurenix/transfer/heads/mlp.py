"""A small network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import nn

from ...errors import ConfigurationError
from ...metrics import TaskKind
from ...nn import build_head
from ._backbone import Backbone
from ._kind import HEADS, HeadKind
from ._starts import zeroed


@HEADS.register("mlp")
@final
@dataclass(frozen=True, kw_only=True)
class MLP(HeadKind):
    """Linear layers with activations between them. num_outputs: classes, labels or values, as the loss says.

    hidden_sizes: widths of the layers between features and outputs.
    activation: by name, see neurenix.nn.ACTIVATIONS. dropout_rate: before each linear layer.
    start: "default", or "zero" for the last layer, so that all answers are alike at first.
    """

    num_outputs: int
    hidden_sizes: list[int] = field(default_factory=lambda: [256])
    activation: str = "relu"
    dropout_rate: float = 0.0
    start: str = "default"

    task: ClassVar[TaskKind | None] = None
    loss: ClassVar[str] = "cross_entropy"
    starts: ClassVar[tuple[str, ...]] = ("default", "zero")

    def check(self) -> None:
        """Hidden layers are what makes it one."""
        if not self.hidden_sizes:
            raise ConfigurationError("hidden_sizes is empty; a head of one layer is Linear.")

    def build(self, backbone: Backbone) -> nn.Module:
        """The network."""
        head = build_head(
            backbone.feature_size,
            self.num_outputs,
            hidden_sizes=self.hidden_sizes,
            activation=self.activation,
            dropout_rate=self.dropout_rate,
        )
        return zeroed(head) if self.start == "zero" else head
