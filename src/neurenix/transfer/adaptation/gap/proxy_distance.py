"""How far two domains are apart, by how well a linear classifier tells them."""

from __future__ import annotations

import numpy
from torch import Tensor

from ....errors import ConfigurationError
from .domain_classifier import as_rows, fit_domain_classifier


def proxy_distance(
    source: Tensor, target: Tensor, *, folds: int = 5, most: int = 2000, penalty: float = 1.0, seed: int = 0
) -> float:
    """Proxy A-distance 2 (1 − 2 ε), ε the cross-validated error of a linear domain classifier.

    Ben-David et al., Analysis of Representations for Domain Adaptation, NIPS 2006. ε is the mean of both
    domains' errors, so that their sizes do not matter, and at most ½. source: (n, d), target: (m, d); of each at most
    `most` rows are looked at, drawn with the seed. -> 0 (nobody can tell them apart) … 2 (everybody can).
    """
    parts = [_shuffled(as_rows(rows), most, seed + place) for place, rows in enumerate((source, target))]
    if folds < 2 or min(map(len, parts)) < folds:
        raise ConfigurationError(
            f"{folds} folds of {len(parts[0])} source and {len(parts[1])} target samples; there are at least 2 folds, "
            "and a sample of each domain in every one."
        )
    errors = numpy.zeros(2)
    for fold in range(folds):
        held_out = [part[fold::folds] for part in parts]
        known_source, known_target = (numpy.delete(part, numpy.s_[fold::folds], axis=0) for part in parts)
        classifier = fit_domain_classifier(known_source, known_target, penalty)
        source_logits, target_logits = (classifier.logits(part) for part in held_out)
        errors += [_wrong(source_logits), _wrong(-target_logits)]
    return float(2 * (1 - 2 * min(0.5, errors.mean() / folds)))


def _shuffled(rows: numpy.ndarray, most: int, seed: int) -> numpy.ndarray:
    return rows[numpy.random.default_rng(seed).permutation(len(rows))[:most]]


def _wrong(logits: numpy.ndarray) -> float:
    """Share of logits on the wrong side of 0; half of those that lie on it."""
    return float(numpy.mean(logits > 0) + numpy.mean(logits == 0) / 2)
