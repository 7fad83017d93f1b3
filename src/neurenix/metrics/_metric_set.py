"""Several metrics fed together: probabilities are computed once, and the host waits for no batch."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from ..errors import ConfigurationError, EmptyDatasetError, NeurenixWarning
from ._dense_metric_set import DenseMetricSet
from ._lookup import check_defined, find_metric
from ._states import load_states, states
from ._task import DENSE, TaskKind, check_labels, check_task, finite_rows, prepare

if TYPE_CHECKING:
    import torchmetrics

Value = float | list[Any]

# Numbers held back before torchmetrics sees them (16 MiB of float32): its counting makes the host wait.
_PENDING = 1 << 22


@final
class MetricSet:
    """Named metrics over one stream of (outputs, targets).

    In a run of several processes the caller gathers outputs and targets; the metrics do not communicate.
    sequences: names of those that are fed whole sequences of decided tags, see Metric.by_sequence.
    """

    def __init__(
        self,
        metrics: Mapping[str, torchmetrics.Metric],
        task: TaskKind,
        num_outputs: int,
        sequences: Collection[str] = (),
    ) -> None:
        self._metrics = dict(metrics)
        self._sequences: dict[str, Any] = {name: metric for name, metric in self._metrics.items() if name in sequences}
        self._of_classes = [metric for name, metric in self._metrics.items() if name not in sequences]
        self._task, self._num_outputs = task, num_outputs
        self._device = torch.device("cpu")
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._pending_size = self._samples = self._not_finite = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of `compute`, in order."""
        return tuple(self._metrics)

    def to(self, device: torch.device) -> MetricSet:
        """Count on `device`; regression stays on the CPU, where float64 exists."""
        if self._task != "regression":
            self._device = device
            for metric in self._metrics.values():
                metric.to(device)
        return self

    def name_outputs(self, names: Sequence[str]) -> None:
        """Tell those that need them the names of the outputs; ConfigurationError for names that they cannot read."""
        for metric in self._sequences.values():
            metric.name_outputs(names)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add some samples. outputs: logits or values, (n, outputs). targets: (n,), or (n, outputs)."""
        if not self._metrics or not len(outputs):
            return
        prepared = prepare(self._task, self._num_outputs, outputs, targets)
        for metric in self._sequences.values():
            metric.update(outputs.detach().argmax(-1), targets)
        self._pending.append(prepared)
        self._pending_size += prepared[0].numel()
        if self._pending_size >= _PENDING:
            self._flush()

    def compute(self) -> dict[str, Value]:
        """Every metric over all samples since the last reset; one without a value is NaN, with a warning."""
        self._flush()
        if not self._metrics:
            return {}
        if not self._samples:
            raise EmptyDatasetError("No samples to compute metrics of: every one was skipped, or the data is empty.")
        if self._not_finite == self._samples:
            return self._with_undefined(dict.fromkeys(self._metrics, math.nan))
        with _unordered_counting():
            values = {name: _plain(name, metric.compute()) for name, metric in self._metrics.items()}
        return self._with_undefined(values)

    def reset(self) -> None:
        """Forget all samples."""
        self._pending.clear()
        self._pending_size = self._samples = self._not_finite = 0
        for metric in self._metrics.values():
            metric.reset()

    def state(self) -> dict[str, Any]:
        """All that was counted since the last reset, as numbers and tensors; counting goes on undisturbed."""
        return {
            "samples": self._samples,
            "not_finite": self._not_finite,
            "pending": self._joined(),
            "parts": states(self._metrics),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on counting where `state` was taken."""
        self.reset()
        self._samples, self._not_finite = state["samples"], state["not_finite"]
        if state["pending"]:
            outputs, targets = state["pending"]
            self._pending, self._pending_size = [(outputs, targets)], outputs.numel()
        load_states(self._metrics, state["parts"])

    def _joined(self) -> list[Tensor]:
        """Outputs and targets that are not counted yet, where the newest are; older ones may come from a file."""
        return [torch.cat([part.to(parts[-1].device) for part in parts]) for parts in zip(*self._pending, strict=True)]

    def _flush(self) -> None:
        if not self._pending:
            return
        outputs, targets = (part.to(self._device) for part in self._joined())
        self._pending.clear()
        self._pending_size = 0
        check_labels(self._task, self._num_outputs, targets)
        finite = finite_rows(outputs)
        self._samples += len(outputs)
        self._not_finite += len(outputs) - int(finite.sum())
        if self._task in ("regression", "ordinal"):
            outputs, targets = outputs.double(), targets.double()
        if not finite.any():
            return
        with _unordered_counting():
            for metric in self._of_classes:
                metric.update(outputs[finite], targets[finite])

    def _with_undefined(self, values: dict[str, Value]) -> dict[str, Value]:
        if self._not_finite:
            values = {name: math.nan if isinstance(value, float) else value for name, value in values.items()}
        names = [name for name, value in values.items() if isinstance(value, float) and math.isnan(value)]
        if names:
            reason = (
                f"{self._not_finite} of {self._samples} outputs are NaN or infinite"
                if self._not_finite
                else f"undefined for these {self._samples} samples (a single class, or equal values)"
            )
            warnings.warn(f"{', '.join(names)} is NaN: {reason}.", NeurenixWarning, stacklevel=3)
        return values


def build_metrics(
    names: Sequence[str | torchmetrics.Metric], task: TaskKind, num_outputs: int
) -> MetricSet | DenseMetricSet:
    """Metrics by name, or torchmetrics instances (copied, keyed by class name, fed probabilities or values).

    Of boxes and pixels by name alone. Raises UnknownNameError for a name that does not exist, ConfigurationError for
    one that the task lacks.
    """
    if isinstance(names, str):
        raise ConfigurationError(f"metrics={names!r} must be a list: [{names!r}].")
    if task in DENSE:
        return DenseMetricSet([_by_name(name) for name in dict.fromkeys(names)], task, num_outputs)
    check_task(task, num_outputs)
    metrics: dict[str, torchmetrics.Metric] = {}
    for name in dict.fromkeys(names):
        key, metric = _build_one(name, task, num_outputs)
        if key in metrics:
            raise ConfigurationError(f"Two metrics would be reported as {key!r}; leave one out.")
        metric.sync_on_compute = False  # the loop gathers outputs instead
        metrics[key] = metric
    by_sequence = [name for name in names if isinstance(name, str) and find_metric(name).by_sequence]
    return MetricSet(metrics, task, num_outputs, by_sequence)


def _by_name(name: Any) -> str:
    if isinstance(name, str):
        return name
    raise ConfigurationError(f"metrics holds {name!r}; of boxes, pixels and symbols they are given by name.")


def _build_one(name: str | torchmetrics.Metric, task: TaskKind, num_outputs: int) -> tuple[str, torchmetrics.Metric]:
    if isinstance(name, str):
        entry = find_metric(name)
        check_defined(entry, task)
        return name, entry.build("multi_class" if task == "token_tagging" else task, num_outputs)
    import torchmetrics

    if not isinstance(name, torchmetrics.Metric):
        raise ConfigurationError(f"metrics holds {name!r}; possible are names and torchmetrics.Metric instances.")
    metric = name.clone()
    metric.reset()
    return type(name).__name__, metric


def _plain(name: str, value: Tensor) -> Value:
    if not isinstance(value, Tensor):
        raise ConfigurationError(f"{name} computes a {type(value).__name__}; only one tensor can be reported.")
    return float(value) if value.ndim == 0 else value.tolist()


@contextlib.contextmanager
def _unordered_counting() -> Iterator[None]:
    """Let torchmetrics count with bincount although deterministic algorithms are demanded.

    Whole numbers add up to the same in any order; its replacement needs samples x classes² of memory.
    """
    if not torch.are_deterministic_algorithms_enabled():
        yield
        return
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=warn_only)
