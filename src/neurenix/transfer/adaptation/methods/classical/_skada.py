"""The border to skada: our features as its arrays, what its adapters give as our tensors."""

from __future__ import annotations

from typing import Any

import numpy
import torch
from torch import Tensor

from ..... import packages
from .....errors import ConfigurationError

_SOURCE, _TARGET, _NO_LABEL = 1, -2, -1  # skada's signs for domains and unknown classes


def adapter(name: str, **settings: Any) -> Any:
    """One of skada's adapters. Raises MissingPackageError where skada or POT is not installed."""
    check_packages()
    return getattr(packages.require("skada", purpose="a classical method"), name)(**settings)


def check_packages() -> None:
    """Raise MissingPackageError where skada or POT is not installed."""
    for package in ("ot", "skada"):
        packages.require(package, purpose="a classical method of domain adaptation", install="'neurenix[adaptation]'")


def fit(chosen: Any, source: Tensor, labels: Tensor, target: Tensor) -> None:
    """Fit an adapter, for what it then knows of the domains."""
    features, classes, domains = _arrays(source, labels, target)
    chosen.fit(features, classes, sample_domain=domains)


def fitted(chosen: Any, source: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """Fit an adapter; gives the source's features (n, r) after it."""
    features, classes, domains = _arrays(source, labels, target)
    adapted = chosen.fit_transform(features, classes, sample_domain=domains)
    return torch.from_numpy(numpy.asarray(adapted, dtype=float)[: len(source)].copy())


def weights_of(chosen: Any, source: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """The source's weights (n,) by an adapter that gives weights, of mean 1."""
    features, classes, domains = _arrays(source, labels, target)
    _, more = chosen.fit_transform(features, classes, sample_domain=domains)
    return of_mean_one(torch.from_numpy(numpy.asarray(more["sample_weight"], dtype=float)[: len(source)].copy()))


def _arrays(source: Tensor, labels: Tensor, target: Tensor) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Features, classes and domains of all samples, the source's first."""
    return (
        numpy.concatenate([source.numpy(), target.numpy()]),
        numpy.concatenate([labels.numpy(), numpy.full(len(target), _NO_LABEL)]),
        numpy.concatenate([numpy.full(len(source), _SOURCE), numpy.full(len(target), _TARGET)]),
    )


def of_mean_one(weights: Tensor) -> Tensor:
    """Weights (n,) over their mean. Raises ConfigurationError where they are all zero or not finite."""
    total = float(weights.sum())
    if not (total > 0 and bool(torch.isfinite(weights).all())):
        raise ConfigurationError(
            "no source sample lies where the target's are, so that none can stand for them: the weights are all zero "
            "or infinite. Take fewer features (a smaller layer, PCA), or a method that moves features: feature_coral, "
            "linear_transport."
        )
    return weights / weights.mean()
