"""Work counted in floating point operations: the same answer in every run, unlike a stopwatch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# Per second, roughly, by a small one of its kind with a network of many small layers. Not measured, so that what
# depends on it is the same in every run.
_PACES = {"cpu": 4e10, "cuda": 1e13}


def pace(device: torch.device) -> float:
    """Floating point operations per second."""
    return _PACES.get(device.type, _PACES["cpu"])


def operations(forward: Callable[[], Any]) -> float:
    """Floating point operations of a call, as torch counts them: those of matrix products and convolutions."""
    return operations_by_kind(forward)[0]


def operations_by_kind(forward: Callable[[], Any]) -> tuple[float, float]:
    """The same, and how many of them are those of convolutions."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward()
    counts = counter.get_flop_counts().get("Global", {})
    convolutions = sum(count for operation, count in counts.items() if "conv" in str(operation))
    return float(counter.get_total_flops()), float(convolutions)
