"""Metrics by name, over torchmetrics: `build_metrics(["accuracy", "f1_score"], "multi_class", 10)`."""

from __future__ import annotations

from . import classification as classification  # each enters its metrics in METRICS
from . import dense as dense
from . import entities as entities
from . import regression as regression
from . import spans as spans
from ._dense_metric_set import DenseMetricSet as DenseMetricSet
from ._lookup import find_metric as find_metric
from ._lookup import higher_is_better as higher_is_better
from ._metric import METRICS as METRICS
from ._metric import Metric as Metric
from ._metric_set import MetricSet as MetricSet
from ._metric_set import build_metrics as build_metrics
from ._metrics import Metrics as Metrics
from ._task import DENSE as DENSE
from ._task import POOLED as POOLED
from ._task import TaskKind as TaskKind

__all__ = [
    "DENSE",
    "DenseMetricSet",
    "METRICS",
    "Metric",
    "MetricSet",
    "POOLED",
    "Metrics",
    "TaskKind",
    "build_metrics",
    "classification",
    "dense",
    "entities",
    "find_metric",
    "higher_is_better",
    "regression",
    "spans",
]
