"""How often each class is expected in the target, as far as a model knows."""

from __future__ import annotations

import torch
from torch import Tensor

from ..gap.label_shift import black_box_shift, class_shares, confusion_rates
from .criterion import Evidence


def expected_shares(evidence: Evidence) -> Tensor:
    """BBSE of a classifier's decisions, its confusion taken from the held-out source samples. -> (k,) float64."""
    classes = evidence.source_outputs.shape[1]
    rates = confusion_rates(evidence.source_outputs.argmax(1), evidence.source_targets, classes)
    return torch.from_numpy(black_box_shift(rates, class_shares(evidence.target_outputs.argmax(1), classes)))
