"""How sure a classifier is of each sample, and how its answers spread over the classes. All in nats."""

from __future__ import annotations

import torch
from torch import Tensor


def entropies(logits: Tensor) -> Tensor:
    """H(p_i) = −Σ_k p_ik log p_ik of each sample. (n, k) -> (n,), from 0 (sure) to log k."""
    logs = logits.log_softmax(1)
    return -(logs.exp() * logs).sum(1)


def marginal_entropy(logits: Tensor) -> Tensor:
    """H(p̄) of the mean answer p̄ = 1/n Σ_i p_i: log k where all classes are told equally often. (n, k) -> ()."""
    mean = logits.log_softmax(1).logsumexp(0) - torch.tensor(float(len(logits)), device=logits.device).log()
    return -(mean.exp() * mean).sum()


def information(logits: Tensor, diversity: float = 1.0) -> Tensor:
    """Minus what a sample's answer tells about which sample it was: mean_i H(p_i) − diversity · H(p̄), to be minimised.

    Krause, Perona & Gomes, Discriminative Clustering by Regularized Information Maximization, NeurIPS 2010, equation
    4; Liang et al., SHOT, ICML 2020, equations 3 and 4. logits: (n, k) -> (), at least −log k with diversity=1.
    """
    return entropies(logits).mean() - diversity * marginal_entropy(logits)
