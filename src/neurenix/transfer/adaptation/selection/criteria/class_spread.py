"""Class spread: how many classes the model finds in the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ..criterion import CRITERIA, Criterion, Evidence
from ._answers import entropy


@CRITERIA.register("class_spread", "diversity")
@final
@dataclass(frozen=True, kw_only=True)
class ClassSpread(Criterion):
    """exp H(mean p): the effective number of classes that are predicted on the target, 1 … k.

    The diversity of Musgrave et al., Three New Validators, 2022, as a number of classes. It says nothing of right and
    wrong and is a safeguard against collapse: one class for all gives 1.
    """

    higher_is_better: ClassVar[bool] = True

    def compute(self, evidence: Evidence) -> float:
        """Of the target's outputs."""
        return float(entropy(evidence.target_outputs.double().softmax(1).mean(0)).exp())
