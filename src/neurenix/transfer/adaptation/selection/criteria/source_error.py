"""Source error: the share of held-out source samples that are answered wrongly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from .....metrics import TaskKind
from ..criterion import CRITERIA, Criterion, Evidence
from ._answers import sample_errors


@CRITERIA.register("source_error")
@final
@dataclass(frozen=True, kw_only=True)
class SourceError(Criterion):
    """Share of wrong classes, or of wrong labels, on held-out source samples.

    A model that has unlearned the source is not to be trusted on the target, whatever its answers look like (Musgrave
    et al., Three New Validators, 2022, where source accuracy is the baseline that most validators do not beat).
    """

    higher_is_better: ClassVar[bool] = False
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label")

    def compute(self, evidence: Evidence) -> float:
        """Of the source's outputs and targets."""
        return float(sample_errors(evidence.task, evidence.source_outputs, evidence.source_targets).mean())
