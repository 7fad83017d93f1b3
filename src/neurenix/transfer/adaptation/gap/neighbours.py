"""Whether samples that lie close together are answered alike."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 512


def neighbour_agreement(features: Tensor, decided: Tensor, neighbours: int = 10) -> float:
    """Share of each sample's nearest neighbours that have its decision, over all samples.

    features: (n, d), compared by their Euclidean distance after standardising each column. decided: (n,) class numbers.
    -> 0 … 1; 1 for fewer than two samples. Of fewer than `neighbours` others all count.
    """
    count = min(neighbours, len(features) - 1)
    if count < 1:
        return 1.0
    rows = features.detach().double().cpu()
    rows = (rows - rows.mean(0)) / rows.std(0).clamp(min=1e-9)
    answers, alike = decided.cpu(), 0
    for start in range(0, len(rows), _BLOCK):
        distances = torch.cdist(rows[start : start + _BLOCK], rows)
        own = torch.arange(len(distances))
        distances[own, own + start] = torch.inf
        nearest = distances.topk(count, largest=False).indices
        alike += int((answers[nearest] == answers[start : start + _BLOCK, None]).sum())
    return alike / (len(rows) * count)
