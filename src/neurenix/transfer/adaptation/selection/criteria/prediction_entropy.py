"""Entropy: how unsure the model is of the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from .....metrics import TaskKind
from ..criterion import CRITERIA, Criterion, Evidence
from ._answers import binary_entropies, entropies


@CRITERIA.register("entropy")
@final
@dataclass(frozen=True, kw_only=True)
class PredictionEntropy(Criterion):
    """Mean entropy of the target's answers, in nats.

    Morerio, Cavazza & Murino, Minimal-Entropy Correlation Alignment, ICLR 2018. Known failure: confident
    nonsense, and one class for all, have none.
    """

    higher_is_better: ClassVar[bool] = False
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label")

    def compute(self, evidence: Evidence) -> float:
        """Of the target's outputs."""
        if evidence.task == "multi_label":
            return float(binary_entropies(evidence.target_outputs.double().sigmoid()).mean())
        return float(entropies(evidence.target_outputs).mean())
