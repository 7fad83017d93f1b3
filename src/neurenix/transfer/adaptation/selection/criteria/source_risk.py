"""Source risk: the loss on held-out source samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from .....metrics import TaskKind
from ..criterion import CRITERIA, Criterion, Evidence
from ._answers import sample_losses


@CRITERIA.register("source_risk")
@final
@dataclass(frozen=True, kw_only=True)
class SourceRisk(Criterion):
    """Mean loss on held-out source samples: cross entropy, or the squared error of values.

    Ganin & Lempitsky, Unsupervised Domain Adaptation by Backpropagation, ICML 2015, watch it for failures.
    """

    higher_is_better: ClassVar[bool] = False
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label", "regression")

    def compute(self, evidence: Evidence) -> float:
        """Of the source's outputs and targets."""
        return float(sample_losses(evidence.task, evidence.source_outputs, evidence.source_targets).mean())
