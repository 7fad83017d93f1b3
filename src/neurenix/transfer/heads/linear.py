"""One linear layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from ...metrics import TaskKind
from ...nn import build_head
from ._backbone import Backbone
from ._kind import HEADS, HeadKind
from ._starts import zeroed


@HEADS.register("linear")
@final
@dataclass(frozen=True, kw_only=True)
class Linear(HeadKind):
    """W x + b. num_outputs: classes, labels or values, as the loss says.

    dropout_rate: share of the features that are left out in a training step.
    start: "default", "zero", "closed_form" (ridge regression in the first fit, as strategy lp_ft does), "lda" (linear
        discriminant analysis, for one class per sample), "by_name" (rows of classes that the model's head knows, by the
        names of the training data's classes; the others begin by default, and it is printed which).
    """

    num_outputs: int
    dropout_rate: float = 0.0
    start: str = "default"

    task: ClassVar[TaskKind | None] = None
    loss: ClassVar[str] = "cross_entropy"
    starts: ClassVar[tuple[str, ...]] = ("default", "zero", "closed_form", "lda", "by_name")

    def build(self, backbone: Backbone) -> nn.Module:
        """The layer, dropout before it."""
        head = build_head(backbone.feature_size, self.num_outputs, dropout_rate=self.dropout_rate)
        return zeroed(head) if self.start == "zero" else head
