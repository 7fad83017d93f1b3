"""A linear classifier that tells target features from source features, and the density ratio that it implies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy
from torch import Tensor

from ....errors import ConfigurationError
from ....packages import require

_STEPS = 500
_PRECISION = 1e-6  # of the gradient's largest entry, per sample


@final
@dataclass(frozen=True, kw_only=True)
class DomainClassifier:
    """logit(f) = (f − mean) / scale · weights + bias. weights, mean, scale: (d,) float64."""

    weights: numpy.ndarray
    bias: float
    mean: numpy.ndarray
    scale: numpy.ndarray

    def logits(self, features: Tensor | numpy.ndarray) -> numpy.ndarray:
        """Logarithm of p(target | f) / p(source | f), as if both domains were equally frequent. (n, d) -> (n,)."""
        scaled = (as_rows(features) - self.mean) / self.scale
        return scaled @ self.weights + self.bias

    def density_ratio(self, features: Tensor | numpy.ndarray) -> numpy.ndarray:
        """p(f | target) / p(f | source) by Bayes' rule. (n, d) -> (n,), above 0."""
        return numpy.exp(numpy.clip(self.logits(features), -30.0, 30.0))


def fit_domain_classifier(
    source: Tensor | numpy.ndarray, target: Tensor | numpy.ndarray, penalty: float = 1.0
) -> DomainClassifier:
    """Logistic regression of the domain, in which both domains weigh the same however many samples they have.

    With N = n + m samples it minimises N/2 (mean_s log(1 + e^z) + mean_t log(1 + e^−z)) + penalty/2 |w|² over
    standardised features: scikit-learn's LogisticRegression(C=1/penalty, class_weight="balanced").
    source: (n, d). target: (m, d). Raises ConfigurationError for a domain without samples, or for other widths.
    """
    source, target = as_rows(source), as_rows(target)
    if not len(source) or not len(target) or source.shape[1] != target.shape[1]:
        raise ConfigurationError(
            f"domains are told apart by features (n, d) and (m, d), n and m above 0; they have {source.shape} and "
            f"{target.shape}."
        )
    rows = numpy.concatenate([source, target])
    mean, spread = rows.mean(0), rows.std(0)
    scale = numpy.where(spread > 1e-12 * (1 + abs(mean)), spread, 1.0)
    sides = numpy.concatenate([numpy.ones(len(source)), -numpy.ones(len(target))])
    shares = numpy.concatenate([numpy.full(len(source), 0.5 / len(source)), numpy.full(len(target), 0.5 / len(target))])
    solution = _minimise((rows - mean) / scale, sides, shares, penalty / len(rows))
    return DomainClassifier(weights=solution[:-1], bias=float(solution[-1]), mean=mean, scale=scale)


def as_rows(features: Tensor | numpy.ndarray) -> numpy.ndarray:
    """(n, …) -> (n, d) float64."""
    array = features.detach().cpu().numpy() if isinstance(features, Tensor) else numpy.asarray(features)
    return array.reshape(len(array), -1).astype(numpy.float64)


def _minimise(rows: numpy.ndarray, sides: numpy.ndarray, shares: numpy.ndarray, penalty: float) -> numpy.ndarray:
    """(d + 1,): weights and bias. sides: (N,), 1 for the source, whose logits have to fall below 0."""
    optimize = require("scipy.optimize", purpose="telling domains apart", install="scipy")

    def risk(parameters: numpy.ndarray) -> tuple[float, numpy.ndarray]:
        weights = parameters[:-1]
        signed = sides * (rows @ weights + parameters[-1])
        slopes = shares * sides / (1.0 + numpy.exp(-numpy.clip(signed, -700, 700)))
        value = shares @ numpy.logaddexp(0.0, signed) + penalty / 2 * weights @ weights
        return float(value), numpy.append(rows.T @ slopes + penalty * weights, slopes.sum())

    start = numpy.zeros(rows.shape[1] + 1)
    options = {"maxiter": _STEPS, "gtol": _PRECISION, "ftol": 1e-12}
    found: numpy.ndarray = optimize.minimize(risk, start, jac=True, method="L-BFGS-B", options=options).x
    return found
