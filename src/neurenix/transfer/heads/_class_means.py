"""The mean features of each class."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import LabelMismatchError


def class_means(features: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """cₖ = mean of the features of class k. Snell, Swersky & Zemel, Prototypical Networks, NeurIPS 2017, eq. 1.

    features: (n, d), targets: (n,) class numbers -> (classes, d), in the features' unit and type
    Raises LabelMismatchError for classes without a sample.
    """
    numbers = targets.long()
    counts = torch.bincount(numbers, minlength=num_classes)
    if bool((counts == 0).any()):
        empty = (counts == 0).nonzero().flatten().tolist()
        raise LabelMismatchError(
            f"classes {empty[:8]} of {num_classes} have no sample, so they have no mean to begin with; add samples, or "
            "make num_outputs the number of classes."
        )
    totals = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, device=features.device)
    totals.index_add_(0, numbers, features.double())
    return (totals / counts.unsqueeze(1)).to(features.dtype)
