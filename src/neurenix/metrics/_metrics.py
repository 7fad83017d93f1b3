"""What the loop needs of a set of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch


class Metrics(Protocol):
    """Named metrics over one stream of (outputs, targets): MetricSet, or DenseMetricSet for boxes and pixels."""

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of `compute`, in order."""
        ...

    def to(self, device: torch.device) -> Metrics:
        """Count on `device`, where that is possible."""
        ...

    def name_outputs(self, names: Sequence[str]) -> None:
        """Tell those that need them the names of the outputs, in order."""
        ...

    def update(self, outputs: Any, targets: Any) -> None:
        """Add some samples."""
        ...

    def compute(self) -> dict[str, Any]:
        """Every metric over all samples since the last reset."""
        ...

    def reset(self) -> None:
        """Forget all samples."""
        ...

    def state(self) -> dict[str, Any]:
        """All that was counted since the last reset, as numbers and tensors."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on counting where `state` was taken."""
        ...
