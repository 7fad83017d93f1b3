"""Whether samples that lie close together are answered alike."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_BLOCK = 512


def nearest_neighbours(features: Tensor, count: int = 10) -> Tensor:
    """Places of the `count` others that lie nearest to each sample; (n, n - 1) of them where there are fewer.

    features: (n, d), compared by their Euclidean distance after standardising each column. -> (n, count) int64.
    """
    count = max(0, min(count, len(features) - 1))
    if not count:
        return torch.zeros(len(features), 0, dtype=torch.long)
    rows = features.detach().double().cpu()
    rows = (rows - rows.mean(0)) / rows.std(0).clamp(min=1e-9)
    found = []
    for start in range(0, len(rows), _BLOCK):
        distances = torch.cdist(rows[start : start + _BLOCK], rows)
        own = torch.arange(len(distances))
        distances[own, own + start] = torch.inf
        found.append(distances.topk(count, largest=False).indices)
    return torch.cat(found)


def neighbour_agreement(features: Tensor, decided: Tensor, neighbours: int = 10) -> float:
    """Share of each sample's nearest neighbours that have its decision, over all samples.

    features: see nearest_neighbours. decided: (n,) class numbers. -> 0 … 1; 1 for fewer than two samples.
    """
    return share_alike(decided, nearest_neighbours(features, neighbours))


def share_alike(decided: Tensor, nearest: Tensor) -> float:
    """Share of neighbours that have a sample's decision, see neighbour_agreement. nearest: (n, k) places."""
    answers = decided.cpu()
    return float((answers[nearest] == answers[:, None]).double().mean()) if nearest.numel() else 1.0


def told_by_neighbours(decided: Tensor, nearest: Tensor, classes: int, least_entropy: float = 0.0) -> float:
    """How much of the decisions the decisions of near samples tell: Theil's uncertainty coefficient, about 0 … 1.

    (H + mean_i ln q_i(a_i)) / max(H, least_entropy), where H = −Σ_c s_c ln s_c is the entropy of the shares s of the
    decisions, and q_i(c) = (neighbours of i that are decided c + s_c) / (neighbours + 1). 0 where there is one decision
    for all, below 0 where neighbours mislead (Theil, On the Estimation of Relationships Involving Qualitative
    Variables, 1970). Deviation: least_entropy, in nats, is what the right decisions are believed to have, so that
    decisions for few classes, of which little is to be told, are not taken for good ones.

    decided: (n,) class numbers below `classes`. nearest: (n, k) places, see nearest_neighbours.
    """
    answers = decided.cpu()
    shares = torch.bincount(answers, minlength=classes).double() / max(1, len(answers))
    entropy = float(torch.special.entr(shares).sum())
    if entropy == 0 or not nearest.numel():
        return 0.0
    counts = functional.one_hot(answers, classes).double()[nearest].sum(1)
    expected = (counts + shares) / (nearest.shape[1] + 1)
    told = entropy + float(expected.gather(1, answers[:, None]).log().mean())
    return told / max(entropy, least_entropy)
