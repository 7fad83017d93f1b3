"""Is transfer helping? The same job without it, for comparison."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy

from ..errors import ConfigurationError
from ..packages import require
from ..storage import read_json, write_json

BASELINES = ("random", "pixels")


@dataclass(frozen=True)
class Outcome:
    """What one method reached. history: per epoch, for methods that have epochs."""

    name: str
    accuracy: float
    parameters: int
    seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)


def check_baselines(names: Sequence[str]) -> None:
    """Raise ConfigurationError for a baseline that does not exist."""
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        raise ConfigurationError(f"--baselines {' '.join(unknown)}: possible are {' and '.join(BASELINES)}.")


def remembered(path: Path, compute: Callable[[], Outcome]) -> Outcome:
    """What was stored at `path`, or what `compute` gives, stored there."""
    if path.is_file():
        return Outcome(**read_json(path))
    outcome = compute()
    write_json(path, asdict(outcome))
    return outcome


def raw_pixels(train: Any, test: Any, size: int = 32) -> Outcome:
    """Logistic regression on the pixels of size x size RGB pictures, standardised."""
    linear = require("sklearn.linear_model", purpose="the pixels baseline", install="scikit-learn")
    preprocessing = require("sklearn.preprocessing", purpose="the pixels baseline", install="scikit-learn")
    pipeline = require("sklearn.pipeline", purpose="the pixels baseline", install="scikit-learn")
    started = time.perf_counter()
    pixels, targets = _pixels(train, size)
    classifier = pipeline.make_pipeline(
        preprocessing.StandardScaler(), linear.LogisticRegression(C=0.01, max_iter=1000)
    ).fit(pixels, targets)
    accuracy = float(classifier.score(*_pixels(test, size)))
    parameters = int(classifier[-1].coef_.size + classifier[-1].intercept_.size)
    return Outcome("logistic regression on pixels", accuracy, parameters, time.perf_counter() - started)


def _pixels(dataset: Any, size: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(n, size * size * 3) in [0, 1] and (n,)."""
    rows, targets = [], []
    for index in range(len(dataset)):
        image, target = dataset[index]
        if not hasattr(image, "resize"):
            raise ConfigurationError("the pixels baseline is for image files; leave it out for other data.")
        rows.append(numpy.asarray(image.convert("RGB").resize((size, size)), dtype=numpy.float32).ravel() / 255)
        targets.append(target)
    return numpy.stack(rows), numpy.asarray(targets)
