"""Whether storing what frozen layers give pays, by counted work: the same answer in every run, unlike a stopwatch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

ENOUGH = 1.3  # times faster, below which no store is made
BACKWARD = 3.0  # a step with gradients costs as much as so many forward passes
# Bytes of rows per second, written or gathered, roughly: in a GPU's own memory; else brought to where they are needed.
_ON_GPU, _ELSEWHERE = 2e10, 4e8


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Per sample: seconds of what is below and above the cut, see backends.Work, and bytes stored.

    passes: times that each sample is read. views: ways in which it is seen, each of which is computed once.
    kept: where the rows are.
    """

    kept: torch.device
    prefix: float
    suffix: float
    stored: float
    passes: int
    views: int = 1

    @property
    def gain(self) -> float:
        """How many times faster all passes together are with a store."""
        stored = self.views * self.prefix + self.passes * (self.suffix + self._seconds_to_move)
        return self.passes * (self.prefix + self.suffix) / stored

    def seconds_to_fill(self, samples: int) -> float:
        """Roughly, on a small device with eager torch."""
        return self.views * self.prefix * samples

    def seconds_saved(self, samples: int) -> float:
        """Roughly, on a small device."""
        computed = (self.passes - self.views) * self.prefix
        return max(0.0, computed - self.passes * self._seconds_to_move) * samples

    @property
    def _seconds_to_move(self) -> float:
        return self.stored / (_ON_GPU if self.kept.type == "cuda" else _ELSEWHERE)
