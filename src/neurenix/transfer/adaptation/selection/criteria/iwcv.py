"""IWCV: the source's losses, weighted by how much each sample is like the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from .....metrics import TaskKind
from ..criterion import CRITERIA, Criterion, Evidence
from ._answers import sample_losses
from ._domain_weights import domain_weights


@CRITERIA.register("iwcv", "importance_weighted_risk")
@final
@dataclass(frozen=True, kw_only=True)
class IWCV(Criterion):
    """Importance-weighted risk, mean w(f) loss, with w from a linear domain classifier of the features.

    Sugiyama, Krauledat & Müller, Covariate Shift Adaptation by Importance Weighted Cross Validation, JMLR 2007.
    Deviation: the ratio is that of features, and not of inputs. penalty: of the classifier.
    """

    higher_is_better: ClassVar[bool] = False
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label", "regression")
    penalty: float = 1.0

    def compute(self, evidence: Evidence) -> float:
        """Of the source's losses and both domains' features."""
        losses = sample_losses(evidence.task, evidence.source_outputs, evidence.source_targets)
        return float((domain_weights(evidence, self.penalty) * losses.cpu()).mean())
