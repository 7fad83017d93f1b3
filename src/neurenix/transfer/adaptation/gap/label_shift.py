"""How often each class occurs in a domain without labels."""

from __future__ import annotations

import numpy
from torch import Tensor

from ....errors import ConfigurationError, LabelMismatchError
from ....packages import require

_STEPS, _PRECISION = 1000, 1e-8


def confusion_rates(decided: Tensor, targets: Tensor, classes: int) -> numpy.ndarray:
    """P(decided = i | class = j), at (i, j); the column of a class without samples is 1 on the diagonal.

    decided, targets: (n,), class numbers. -> (classes, classes) float64, columns sum to 1.
    """
    if decided.shape != targets.shape or decided.ndim != 1:
        raise LabelMismatchError(
            f"one decision and one class for each sample; there are {tuple(decided.shape)} and {tuple(targets.shape)}."
        )
    counts = numpy.zeros((classes, classes))
    numpy.add.at(counts, (decided.long().cpu().numpy(), targets.long().cpu().numpy()), 1.0)
    empty = counts.sum(0) == 0
    counts[empty, empty] = 1.0
    return counts / counts.sum(0)


def class_shares(classes: Tensor, number: int) -> numpy.ndarray:
    """(n,) class numbers -> (number,) float64, their shares."""
    counts = numpy.bincount(classes.long().cpu().numpy(), minlength=number)
    return counts / max(1, counts.sum())


def black_box_shift(rates: numpy.ndarray, predicted: numpy.ndarray) -> numpy.ndarray:
    """Shares of the classes in the target: those under which the confusion of the source gives what is predicted.

    Lipton, Wang & Smola, Detecting and Correcting for Label Shift with Black Box Predictors (BBSE), ICML 2018:
    argmin_t |C t − q|². Deviation: t is held to be shares, t ≥ 0 and Σ t = 1, where the paper inverts C and
    clips. rates: C, (k, k), of confusion_rates. predicted: q, (k,), shares of the decisions on the target. -> (k,).
    """
    rates, predicted = numpy.asarray(rates, dtype=float), numpy.asarray(predicted, dtype=float)
    if rates.shape != (len(predicted), len(predicted)):
        raise ConfigurationError(f"rates {rates.shape} do not belong to shares of {len(predicted)} classes.")
    optimize = require("scipy.optimize", purpose="estimating label shift", install="scipy")
    strict = 1e3  # weight of the sum; what is left of its error is divided out
    matrix = numpy.vstack([rates, numpy.full(len(predicted), strict)])
    shares: numpy.ndarray = optimize.nnls(matrix, numpy.append(predicted, strict))[0]
    return shares / shares.sum()


def maximum_likelihood_shift(probabilities: Tensor, source_shares: numpy.ndarray) -> numpy.ndarray:
    """Shares of the classes in the target that make its outputs most likely, by expectation maximisation.

    Saerens, Latinne & Decaestecker, Adjusting the Outputs of a Classifier to New a Priori Probabilities, Neural
    Computation 2002. Right where probabilities are calibrated on the source (Alexandari et
    al., ICML 2020). probabilities: (m, k), of the target's samples. source_shares: (k,). -> (k,).
    """
    outputs = probabilities.detach().double().cpu().numpy()
    prior = numpy.maximum(numpy.asarray(source_shares, dtype=float), 1e-12)
    shares = prior / prior.sum()
    for _ in range(_STEPS):
        weighted = outputs * (shares / prior)
        updated = (weighted / numpy.maximum(weighted.sum(1, keepdims=True), 1e-300)).mean(0)
        moved, shares = abs(updated - shares).sum(), updated
        if moved < _PRECISION:
            break
    return shares


def share_distance(first: numpy.ndarray, second: numpy.ndarray) -> float:
    """Total variation ½ Σ |a − b| of two shares (k,): 0 for the same, 1 for no class in common."""
    return float(abs(numpy.asarray(first) - numpy.asarray(second)).sum() / 2)
