"""Which columns of a feature matrix matter for a task, as an index that can be saved and applied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, final

import numpy
import torch
from torch import Tensor

from ...errors import ConfigurationError, DamagedFileError, InputMismatchError, LabelMismatchError
from ...packages import require
from ...registry import Registry
from ...storage import read_json, write_json

Matrix = TypeVar("Matrix", Tensor, numpy.ndarray)
Score = Callable[["numpy.ndarray", "numpy.ndarray | None", int, int], "numpy.ndarray"]

SELECTIONS: Registry[Score] = Registry("feature selection method")
"""(features (n, d), targets (n,), (n, t) or None, number of columns wanted, seed) -> scores (d,), higher is better."""

_FORMAT = 1
_L1_STEPS = 24


@final
class FeatureSelector:
    """Choose columns of a feature matrix by what they say about the targets.

    method: a name in SELECTIONS: "variance" (needs no targets), "mutual_information" (each column alone),
        "l1" (columns that a sparse linear probe takes first, so of two equal columns it may take only one).
    count, share: how many columns, or which share of them, to keep; give one of the two.
    Integer targets are classes; floating point targets are values; (n, t) targets are t tasks at once.

    indices: (k,) chosen columns, rising. scores: (d,) of all columns.
    """

    def __init__(
        self, method: str = "variance", count: int | None = None, share: float | None = None, seed: int = 0
    ) -> None:
        self.method = SELECTIONS.canonical(method)
        if (count is None) == (share is None):
            raise ConfigurationError(f"give either count or share of columns to keep; got {count=}, {share=}.")
        if (count is not None and count < 1) or (share is not None and not 0 < share <= 1):
            raise ConfigurationError(f"count is at least 1 and share in (0, 1]; got {count=}, {share=}.")
        self.count, self.share, self.seed = count, share, seed
        self.width = 0
        self.indices = torch.empty(0, dtype=torch.long)
        self.scores = torch.empty(0)

    def fit(self, features: Any, targets: Any = None) -> FeatureSelector:
        """Score and choose columns. features: (n, d). targets: (n,) or (n, t); tensors or arrays."""
        matrix, known = _array(features).astype(numpy.float64), None if targets is None else _array(targets)
        self._check_data(matrix, known)
        wanted = self._wanted(matrix.shape[1])
        scores = SELECTIONS[self.method](matrix, known, wanted, self.seed)
        best = numpy.argsort(-scores, kind="stable")[:wanted]  # stable: of equal columns the first
        self.width = matrix.shape[1]
        self.scores = torch.from_numpy(scores)
        self.indices = torch.from_numpy(numpy.sort(best)).long()
        return self

    def transform(self, features: Matrix) -> Matrix:
        """The chosen columns of (n, d) features, as what came in: a tensor or an array."""
        self.check_fitted()
        if features.ndim != 2 or features.shape[1] != self.width:
            raise InputMismatchError(
                f"features of shape {tuple(features.shape)} do not fit this selector, which was fitted on "
                f"{self.width} columns; use the same layers and pooling as for fit()."
            )
        if isinstance(features, Tensor):
            return features[:, self.indices.to(features.device)]
        return features[:, self.indices.numpy()]

    def check_fitted(self) -> None:
        """Raise ConfigurationError before fit() or load()."""
        if not self.width:
            raise ConfigurationError("this FeatureSelector has chosen nothing yet; call fit(features, targets) first.")

    def save(self, path: str | Path) -> None:
        """Write the index as JSON."""
        self.check_fitted()
        content = {
            "format": _FORMAT,
            "method": self.method,
            "count": self.count,
            "share": self.share,
            "seed": self.seed,
            "width": self.width,
            "indices": self.indices.tolist(),
            "scores": self.scores.tolist(),
        }
        write_json(Path(path), content)

    @classmethod
    def load(cls, path: str | Path) -> FeatureSelector:
        """Read what `save` wrote; raises DamagedFileError when the file is something else."""
        content = read_json(Path(path))
        try:
            selector = cls(content["method"], content["count"], content["share"], content["seed"])
            selector.width = int(content["width"])
            selector.indices = torch.tensor(content["indices"], dtype=torch.long)
            selector.scores = torch.tensor(content["scores"], dtype=torch.float64)
            in_range = 0 <= int(selector.indices.min()) and int(selector.indices.max()) < selector.width
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DamagedFileError(f"{path} is not an index saved by FeatureSelector ({error!r}).") from error
        if content.get("format") != _FORMAT or not in_range:
            raise DamagedFileError(f"{path} is not an index of format {_FORMAT}; save the selector again.")
        return selector

    def _wanted(self, width: int) -> int:
        if self.count is not None and self.count > width:
            raise ConfigurationError(f"count={self.count} columns cannot be chosen from {width}.")
        return self.count if self.count is not None else max(1, round(self.share * width))  # type: ignore[operator]

    def _check_data(self, features: numpy.ndarray, targets: numpy.ndarray | None) -> None:
        if features.ndim != 2 or not features.size:
            raise InputMismatchError(f"features are a matrix (samples, columns), not of shape {features.shape}.")
        if not numpy.isfinite(features).all():
            raise InputMismatchError("the features have NaN or infinite values, by which no column can be judged.")
        if targets is None and self.method != "variance":
            raise ConfigurationError(f"method={self.method!r} needs targets: fit(features, targets).")
        if targets is not None and len(targets) != len(features):
            raise LabelMismatchError(f"there are {len(targets)} targets for {len(features)} rows of features.")


@SELECTIONS.register("variance")
def variance(features: numpy.ndarray, targets: numpy.ndarray | None, wanted: int, seed: int) -> numpy.ndarray:
    """Variance of each column over the samples. features: (n, d) -> (d,)."""
    return features.var(axis=0)


@SELECTIONS.register("mutual_information", "mi")
def mutual_information(features: numpy.ndarray, targets: numpy.ndarray | None, wanted: int, seed: int) -> numpy.ndarray:
    """Estimated information, in nats, that each column alone gives on the targets; the mean over several
    targets.

    Ross, Mutual Information between Discrete and Continuous Data Sets, PLoS ONE 2014 (classes);
    Kraskov et al., Estimating mutual information, Phys. Rev. E 2004 (values). features: (n, d) -> (d,)
    """
    chooser = require("sklearn.feature_selection", purpose="mutual information", install="scikit-learn")
    estimate = chooser.mutual_info_classif if _are_classes(targets) else chooser.mutual_info_regression
    scores = [estimate(features, column, random_state=seed) for column in _columns(targets)]
    return numpy.mean(scores, axis=0)


@SELECTIONS.register("l1", "lasso")
def l1(features: numpy.ndarray, targets: numpy.ndarray | None, wanted: int, seed: int) -> numpy.ndarray:
    """Size of each column's weights in a linear probe that is just dense enough to use `wanted` columns.

    The penalty starts where all weights are zero and is halved until enough columns are used. Columns are
    scaled to variance 1 first. Tibshirani, Regression Shrinkage and Selection via the Lasso, JRSS B 1996.
    features: (n, d) -> (d,)
    """
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / numpy.where(spread > 0, spread, 1.0)
    weigh = _class_weights if _are_classes(targets) else _value_weights
    columns = _columns(targets)
    scores = numpy.zeros(features.shape[1])
    for step in range(_L1_STEPS):
        scores = numpy.sum([weigh(scaled, column, 2.0**step, seed) for column in columns], axis=0)
        if numpy.count_nonzero(scores) >= wanted:
            break
    return scores


def _class_weights(features: numpy.ndarray, targets: numpy.ndarray, ease: float, seed: int) -> numpy.ndarray:
    """Sum over classes (one against the rest) of |weights| at `ease` times the smallest C that has any."""
    linear = require("sklearn.linear_model", purpose="the L1 probe", install="scikit-learn")
    svm = require("sklearn.svm", purpose="the L1 probe", install="scikit-learn")
    total = numpy.zeros(features.shape[1])
    classes = numpy.unique(targets)
    for positive in classes[1:] if len(classes) == 2 else classes:
        member = (targets == positive).astype(int)
        strength = ease * svm.l1_min_c(features, member, loss="log") * 1.001
        probe = linear.LogisticRegression(
            l1_ratio=1.0, C=strength, solver="liblinear", max_iter=1000, random_state=seed
        )
        total += numpy.abs(probe.fit(features, member).coef_[0])
    return total


def _value_weights(features: numpy.ndarray, targets: numpy.ndarray, ease: float, seed: int) -> numpy.ndarray:
    """|weights| of a lasso with 1/`ease` times the smallest penalty that has none."""
    linear = require("sklearn.linear_model", purpose="the L1 probe", install="scikit-learn")
    centred = targets - targets.mean()
    largest = numpy.abs(features.T @ centred).max() / len(features)
    if largest == 0:
        return numpy.zeros(features.shape[1])
    probe = linear.Lasso(alpha=largest / ease, max_iter=100_000, random_state=seed)
    return numpy.abs(probe.fit(features, centred).coef_)


def _are_classes(targets: numpy.ndarray | None) -> bool:
    return targets is not None and targets.dtype.kind in "iub"


def _columns(targets: numpy.ndarray | None) -> list[numpy.ndarray]:
    assert targets is not None  # fit() has checked it for every method but variance
    return [targets] if targets.ndim == 1 else list(targets.reshape(len(targets), -1).T)


def _array(values: Any) -> numpy.ndarray:
    if not isinstance(values, Tensor):
        return numpy.asarray(values)
    has_no_numpy_type = values.dtype == torch.bfloat16
    return (values.detach().float() if has_no_numpy_type else values.detach()).cpu().numpy()
