"""How much more likely each held-out source sample is in the target than in the source."""

from __future__ import annotations

import torch
from torch import Tensor

from ...gap.domain_classifier import fit_domain_classifier
from ..criterion import Evidence

MOST_FITTED = 2000


def domain_weights(evidence: Evidence, penalty: float) -> Tensor:
    """p(f | target) / p(f | source) of each held-out source sample. -> (n,) float64, with a mean near 1.

    The classifier behind it never saw the sample that it weighs: it is trained on training_features where they are
    known, else each half of the held-out samples is weighed by one that was trained on the other half.
    """
    held_out, target = evidence.source_features, evidence.target_features[:MOST_FITTED]
    if evidence.training_features is not None:
        known = fit_domain_classifier(evidence.training_features[:MOST_FITTED], target, penalty)
        return torch.from_numpy(known.density_ratio(held_out))
    weights = torch.ones(len(held_out), dtype=torch.float64)
    for half in range(2 if len(held_out) > 1 else 0):
        other = fit_domain_classifier(held_out[1 - half :: 2][:MOST_FITTED], target, penalty)
        weights[half::2] = torch.from_numpy(other.density_ratio(held_out[half::2]))
    return weights
