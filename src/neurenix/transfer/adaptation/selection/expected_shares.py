"""How often each class is expected in the target, as far as a model knows."""

from __future__ import annotations

import torch
from torch import Tensor

from ..gap.label_shift import black_box_shift, class_shares, confusion_rates
from ..gap.neighbours import share_alike
from .criterion import Evidence

_TIDY = 0.4  # source models that can tell have 0.44 to 0.97, those of a third of ten digits 0.29 to 0.35 (docs/log.md)


def expected_shares(evidence: Evidence) -> Tensor:
    """BBSE of a classifier's decisions, its confusion taken from the held-out source samples. -> (k,) float64."""
    classes = evidence.source_outputs.shape[1]
    rates = confusion_rates(evidence.source_outputs.argmax(1), evidence.source_targets, classes)
    return torch.from_numpy(black_box_shift(rates, class_shares(evidence.target_outputs.argmax(1), classes)))


def can_tell_shares(evidence: Evidence, nearest: Tensor | None) -> bool:
    """Whether BBSE's assumption may hold for a model that the source alone has trained: classes look alike in both.

    Not where the model does not know the source's classes, nor where its decisions on the target cut through groups of
    near samples: where of ten neighbours, beyond what chance gives, fewer than four are decided alike. nearest: (m, 10)
    places, near in features that were not trained on the source; None where none are known, and neighbours not asked.
    """
    classes, decided = evidence.source_outputs.shape[1], evidence.source_outputs.argmax(1)
    if float((decided != evidence.source_targets).double().mean()) >= (1 - 1 / classes) / 2:
        return False
    return nearest is None or tidiness(evidence.target_outputs.argmax(1), nearest, classes) >= _TIDY


def tidiness(decided: Tensor, nearest: Tensor, classes: int) -> float:
    """Share of neighbours decided alike, as a part of what is beyond chance: 0 for decisions by lot, 1 for groups."""
    return (share_alike(decided, nearest) - 1 / classes) * classes / (classes - 1)


def believed_shares(evidence: Evidence, nearest: Tensor | None) -> Tensor:
    """Those of BBSE where it can tell, else the source's own. -> (k,) float64."""
    if can_tell_shares(evidence, nearest):
        return expected_shares(evidence)
    return torch.from_numpy(class_shares(evidence.source_targets, evidence.source_outputs.shape[1]))
