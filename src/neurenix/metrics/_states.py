"""What torchmetrics' metrics have counted, as numbers and tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    import torchmetrics


def states(metrics: Mapping[str, torchmetrics.Metric]) -> dict[str, list[Any]]:
    """Name -> for the metric and each that it is made of, its updates and its values, copied."""
    return {name: [_counted(part) for part in _parts(metric)] for name, metric in metrics.items()}


def load_states(metrics: Mapping[str, torchmetrics.Metric], found: Mapping[str, list[Any]]) -> None:
    """Put back what `states` gave."""
    for name, metric in metrics.items():
        for part, counted in zip(_parts(metric), found[name], strict=True):
            part._update_count = counted["updates"]
            for key, value in counted["values"].items():
                moved = [item.to(part.device) for item in value] if isinstance(value, list) else value
                setattr(part, key, moved.to(part.device) if isinstance(moved, Tensor) else moved)


def _parts(metric: torchmetrics.Metric) -> list[Any]:
    """A metric and those that it is made of."""
    return [part for part in metric.modules() if hasattr(part, "metric_state")]


def _counted(part: Any) -> dict[str, Any]:
    return {"updates": part._update_count, "values": {name: _copied(part, name) for name in part._defaults}}


def _copied(part: Any, name: str) -> Any:
    value = getattr(part, name)
    return [item.clone() for item in value] if isinstance(value, list) else value.clone()
