"""Whether storing what frozen layers give pays, by counted work: the same answer in every run, unlike a stopwatch."""

from __future__ import annotations

from dataclasses import dataclass

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

    def seconds_to_fill(self, samples: int) -> float:
        """Roughly, on a small machine with eager torch."""
        return self.views * self.prefix * samples / _OPERATIONS_PER_SECOND

    def seconds_saved(self, samples: int) -> float:
        """Roughly, on a small machine."""
        operations = (self.passes - self.views) * self.prefix - self.passes * self.stored * _OPERATIONS_PER_BYTE
        return max(0.0, operations * samples / _OPERATIONS_PER_SECOND)
