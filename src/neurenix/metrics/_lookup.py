"""From a name to a metric."""

from __future__ import annotations

from ..errors import ConfigurationError
from ._metric import METRICS, Metric
from ._task import TaskKind
from .classification import top_k_accuracy


def find_metric(name: str) -> Metric:
    """The metric of that name; `top3_accuracy` and the like exist for every number.

    Raises UnknownNameError with the nearest names.
    """
    if isinstance(name, str) and name not in METRICS:
        top_k = top_k_accuracy(name)
        if top_k is not None:
            return top_k
    return METRICS[name]


def higher_is_better(name: str) -> bool | None:
    """Which direction of a metric is good: True is up, False is down, None has no direction."""
    return find_metric(name).higher_is_better


def check_defined(metric: Metric, task: TaskKind) -> None:
    """Raise ConfigurationError, listing the metrics that the task has, when this one is not among them."""
    if task not in metric.tasks:
        defined = ", ".join(name for name, entry in METRICS.items() if task in entry.tasks)
        raise ConfigurationError(f"Metric {metric.name!r} is not defined for {task}; defined: {defined}.")
