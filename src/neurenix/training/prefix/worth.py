"""Whether storing what frozen layers give pays, by counted work: the same answer in every run, unlike a stopwatch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...backends import pace

ENOUGH = 1.3  # times faster, below which no store is made
BACKWARD = 3.0  # a step with gradients costs as much as so many forward passes


@dataclass(frozen=True)
class Estimate:
    """Per sample: floating point operations below and above the cut, and bytes stored; what they take on a device.

    passes: times that each sample is read. views: ways in which it is seen, each of which is computed once.
    """

    device: torch.device
    prefix: float
    suffix: float
    stored: float
    passes: int
    views: int = 1

    @property
    def gain(self) -> float:
        """How many times faster all passes together are with a store."""
        operations, moved = pace(self.device)
        below, above = self.prefix / operations, self.suffix / operations
        return self.passes * (below + above) / (self.views * below + self.passes * (above + self.stored / moved))

    def seconds_to_fill(self, samples: int) -> float:
        """Roughly, on a small device with eager torch."""
        return self.views * self.prefix * samples / pace(self.device)[0]

    def seconds_saved(self, samples: int) -> float:
        """Roughly, on a small device."""
        operations, moved = pace(self.device)
        seconds = (self.passes - self.views) * self.prefix / operations - self.passes * self.stored / moved
        return max(0.0, seconds * samples)
