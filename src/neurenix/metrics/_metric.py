"""What the library knows of a metric, and the registry that its file enters it in."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from ..errors import ConfigurationError, NeurenixWarning
from ..registry import Registry
from ._task import TaskKind

if TYPE_CHECKING:
    import torchmetrics

Build = Callable[[TaskKind, int], "torchmetrics.Metric"]

CLASSIFICATION: tuple[TaskKind, ...] = ("multi_class", "multi_label")
MULTI_CLASS: tuple[TaskKind, ...] = ("multi_class",)
MULTI_LABEL: tuple[TaskKind, ...] = ("multi_label",)
REGRESSION: tuple[TaskKind, ...] = ("regression",)


@final
@dataclass(frozen=True)
class Metric:
    """A named measure of outputs against targets.

    build: (task, number of outputs) -> a fresh torchmetrics.Metric, which is fed probabilities (classification)
    or values (regression) and targets, shaped as `prepare` says.
    higher_is_better: None for what has no order (a confusion matrix). range: the smallest and largest value.
    """

    name: str
    tasks: tuple[TaskKind, ...]
    higher_is_better: bool | None
    range: tuple[float, float]
    description: str
    build: Build


METRICS: Registry[Metric] = Registry("metric", hint="topK_accuracy exists for every K.")


def metric(
    name: str,
    *aliases: str,
    tasks: tuple[TaskKind, ...],
    higher_is_better: bool | None = True,
    range: tuple[float, float] = (0.0, 1.0),
) -> Callable[[Build], Build]:
    """Decorator that registers a build function; the first line of its docstring describes the metric."""

    def register(build: Build) -> Build:
        description = (build.__doc__ or "").partition("\n")[0]
        METRICS.add(name, Metric(name, tasks, higher_is_better, range, description, build), *aliases)
        return build

    return register


def find_metric(name: str) -> Metric:
    """The metric of that name; `top3_accuracy` and the like exist for every number.

    Raises UnknownNameError with the nearest names.
    """
    # Deferred: classification.py registers itself through this file.
    from .classification import top_k_accuracy

    return METRICS[name] if name in METRICS else top_k_accuracy(name) or METRICS[name]


def higher_is_better(name: str) -> bool | None:
    """Which direction of a metric is good: True is up, False is down, None has no direction."""
    return find_metric(name).higher_is_better


def check_defined(metric: Metric, task: TaskKind) -> None:
    """Raise ConfigurationError, listing the metrics that the task has, when this one is not among them."""
    if task not in metric.tasks:
        defined = ", ".join(name for name, entry in METRICS.items() if task in entry.tasks)
        raise ConfigurationError(f"Metric {metric.name!r} is not defined for {task}; defined: {defined}.")


def warn_undefined(name: str, reason: str) -> float:
    """Issue a NeurenixWarning that `name` has no value, and give NaN."""
    warnings.warn(f"{name} is NaN: {reason}", NeurenixWarning, stacklevel=3)
    return math.nan
