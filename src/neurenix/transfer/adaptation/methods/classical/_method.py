"""What a classical method is: features of both domains go in, and what an ordinary head is solved on comes out."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .....errors import ConfigurationError, LabelMismatchError, NonFiniteError
from ....tuner import Tuner
from ...method import Way, WholeMethod

_FEWEST = 2  # samples of a domain, of which a mean and a variance can be told


@dataclass(frozen=True)
class LinearMap:
    """x -> matrix x + offset. matrix: (r, d). offset: (r,)."""

    matrix: Tensor
    offset: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """(n, d) -> (n, r)."""
        return features.to(self.matrix.dtype) @ self.matrix.T + self.offset


@dataclass(frozen=True)
class AdaptedFeatures:
    """What a head is solved on, in float64.

    source: (n, r). weights: (n,) of the samples, of mean 1; None where all count the same. target_map: what brings the
    target's features (·, d) to where the source's are now; None where they stay as they are, and r = d.
    """

    source: Tensor
    weights: Tensor | None = None
    target_map: LinearMap | None = None

    @property
    def effective_samples(self) -> float:
        """How many equal samples tell as much as the weighted ones: (Σ w)² / Σ w². Kish, Survey Sampling, 1965."""
        if self.weights is None:
            return float(len(self.source))
        return float(self.weights.sum() ** 2 / self.weights.square().sum())


@dataclass(frozen=True, kw_only=True)
class ClassicalMethod(WholeMethod):
    """A method that needs nothing but features: of labelled source samples, and of the target's."""

    family: ClassVar[str] = "classical"
    leaves_trunk: ClassVar[bool] = True

    def check_model(self, tuner: Tuner) -> None:
        """Its head ends in a linear layer, and the packages are there."""
        from ._install import last_layer
        from ._skada import check_packages

        check_packages()
        last_layer(tuner)

    def adapt(self, tuner: Tuner, way: Way) -> None:
        """See install_adapted_head."""
        from ._install import install_adapted_head  # which is written for these records

        install_adapted_head(tuner, self, way.source, way.target, way.batch_size, way.num_workers)

    def adapt_features(self, source: Tensor, labels: Tensor, target: Tensor) -> AdaptedFeatures:
        """Source features (n, d), class numbers (n,) and target features (m, d), as a head can be solved on them.

        Raises ConfigurationError for too few samples, or where source and target do not overlap; LabelMismatchError for
        labels that are no class numbers; NonFiniteError for features that are NaN or infinite; MissingPackageError.
        """
        _check(source, labels, target)
        adapted = self._adapted(source.detach().cpu().double(), labels.cpu().long(), target.detach().cpu().double())
        _check_result(type(self).__name__, adapted)
        return adapted

    @abc.abstractmethod
    def _adapted(self, source: Tensor, labels: Tensor, target: Tensor) -> AdaptedFeatures:
        """The method itself, on float64 features."""


def _check_result(name: str, adapted: AdaptedFeatures) -> None:
    """Raise NonFiniteError for what no head can be solved on."""
    mapped = [] if adapted.target_map is None else [adapted.target_map.matrix, adapted.target_map.offset]
    parts = [adapted.source, *([] if adapted.weights is None else [adapted.weights]), *mapped]
    if not all(bool(part.isfinite().all()) for part in parts):
        raise NonFiniteError(
            f"{name} gave NaN or infinity for features of which none are: more features than samples, or values too "
            "large for its exponentials. Give more samples, a larger ridge or smoothing, or take 'feature_coral'."
        )


def _check(source: Tensor, labels: Tensor, target: Tensor) -> None:
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1]:
        raise ConfigurationError(
            f"source features of shape {tuple(source.shape)} and target features of shape {tuple(target.shape)} came; "
            "both are matrices (samples, features) with the same features."
        )
    if min(len(source), len(target)) < _FEWEST:
        raise ConfigurationError(
            f"{len(source)} source and {len(target)} target samples are too few to compare their features; give many."
        )
    if labels.shape != (len(source),) or labels.is_floating_point() or bool((labels < 0).any()):
        raise LabelMismatchError(
            f"labels of shape {tuple(labels.shape)} and type {str(labels.dtype).removeprefix('torch.')} came for "
            f"{len(source)} source samples; classical methods are for classification: one class number, 0 or higher, "
            "for each."
        )
    for name, features in (("source", source), ("target", target)):
        wrong = int((~torch.isfinite(features).all(1)).sum())
        if wrong:
            raise NonFiniteError(f"the features of {wrong} {name} samples are NaN or infinite; look for them there.")
