"""Work counted in floating point operations: the same answer in every run, unlike a stopwatch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def operations(forward: Callable[[], Any]) -> float:
    """Floating point operations of a call, as torch counts them: those of matrix products and convolutions."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward()
    return float(counter.get_total_flops())
