"""One linear layer for labels that do not exclude each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from ...metrics import TaskKind
from ...nn import build_head
from ._backbone import Backbone
from ._kind import HEADS, HeadKind
from ._starts import zeroed


@HEADS.register("multi_label")
@final
@dataclass(frozen=True, kw_only=True)
class MultiLabel(HeadKind):
    """One logit for each label, its probability being the sigmoid. num_outputs: labels.

    Linear with another default loss, binary_cross_entropy; targets are (n, labels) of 0 and 1.
    dropout_rate, start: see Linear.
    """

    num_outputs: int
    dropout_rate: float = 0.0
    start: str = "default"

    task: ClassVar[TaskKind | None] = "multi_label"
    loss: ClassVar[str] = "binary_cross_entropy"
    starts: ClassVar[tuple[str, ...]] = ("default", "zero", "closed_form", "by_name")

    def build(self, backbone: Backbone) -> nn.Module:
        """The layer, dropout before it."""
        head = build_head(backbone.feature_size, self.num_outputs, dropout_rate=self.dropout_rate)
        return zeroed(head) if self.start == "zero" else head
