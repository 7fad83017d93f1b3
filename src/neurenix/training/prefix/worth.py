"""Whether storing what frozen layers give pays, by counted work: the same answer in every run, unlike a stopwatch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

ENOUGH = 1.3  # times faster, below which no store is made
_OPERATIONS_PER_SECOND = 4e10  # of a small machine with a network of many small layers
_OPERATIONS_PER_BYTE = 100.0  # floating point operations that take as long as moving one stored byte
BACKWARD = 3.0  # a step with gradients costs as much as so many forward passes


@dataclass(frozen=True)
class Estimate:
    """Per sample: floating point operations below and above the cut, and bytes stored.

    passes: times that each sample is read. views: ways in which it is seen, each of which is computed once.
    """

    prefix: float
    suffix: float
    stored: float
    passes: int
    views: int = 1

    @property
    def gain(self) -> float:
        """How many times faster all passes together are with a store."""
        moved = self.stored * _OPERATIONS_PER_BYTE
        ordinary = self.passes * (self.prefix + self.suffix)
        return ordinary / (self.views * self.prefix + self.passes * (self.suffix + moved))

    def seconds_saved(self, samples: int) -> float:
        """Roughly, on a small machine."""
        operations = (self.passes - self.views) * self.prefix - self.passes * self.stored * _OPERATIONS_PER_BYTE
        return max(0.0, operations * samples / _OPERATIONS_PER_SECOND)


def operations(forward: Callable[[], Any]) -> float:
    """Floating point operations of a call, as torch counts them: those of matrix products and convolutions."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward()
    return float(counter.get_total_flops())
