"""How often each of several models is right, from how they agree with each other."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST = 3  # different models: of two that disagree nobody can tell which is wrong
_MOST_ROUNDS = 100
_SETTLED = 1e-5
_CERTAIN = 1e-3  # an estimate's distance to 1, and to chance, at least


def accuracies_by_agreement(answers: Tensor, classes: int) -> Tensor | None:
    """Estimated accuracies of models on samples whose classes nobody knows; None if fewer than three models differ.

    answers: (m, n) class numbers below `classes`, of m models for the same n samples -> (m,) float32. Models whose
    answers are all the same count once: methods that kept the model they began with are no witnesses for it.

    The expectation maximisation of Dawid & Skene (Journal of the Royal Statistical Society C, 1979) for k classes that
    are equally likely, where model i is right with probability p_i and else says any of the other classes alike:
    the log odds of class c for sample j are Σ_i [a_ij = c] ln((k - 1) p_i / (1 - p_i)), and p_i is the mean over j of
    the probability of a_ij. Models that err together look better than they are.
    """
    if not answers.numel() or classes < 2:
        return None
    different, which = answers.long().cpu().unique(dim=0, return_inverse=True)
    if len(different) < _LEAST:
        return None
    weights = torch.ones(len(different))
    accuracies = torch.zeros(len(different))
    for _ in range(_MOST_ROUNDS):
        votes = torch.zeros(different.shape[1], classes)
        for own, weight in zip(different, weights, strict=True):
            votes.scatter_add_(1, own[:, None], weight.expand(len(own), 1))
        before = accuracies
        accuracies = votes.softmax(1).gather(1, different.T).mean(0).clamp(1 / classes + _CERTAIN, 1 - _CERTAIN)
        weights = (accuracies * (classes - 1) / (1 - accuracies)).log()
        if float((accuracies - before).abs().max()) < _SETTLED:
            break
    return accuracies[which]
