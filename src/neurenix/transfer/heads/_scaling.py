"""Targets in units of their own spread, so that a head need not learn numbers such as 1003.7 from zero."""

from __future__ import annotations

from typing import Any, final

import numpy
import torch
from torch import Tensor, nn

from ...errors import LabelMismatchError


@final
class TargetScaling(nn.Module):
    """y = mean + sd · z, per value; mean and standard deviation are those of the first fit's training targets.

    They are buffers, saved with the head. Before the first fit they are 0 and 1.
    """

    mean: Tensor
    sd: Tensor
    known: Tensor

    def __init__(self, values: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("sd", torch.ones(values))
        self.register_buffer("known", torch.zeros((), dtype=torch.bool))

    @property
    def is_set(self) -> bool:
        """Whether targets have been seen."""
        return bool(self.known)

    def learn(self, targets: Any) -> None:
        """Take mean and standard deviation of targets (n,) or (n, values); a spread of 0 counts as 1."""
        numbers = numpy.asarray(targets, dtype=numpy.float64).reshape(len(targets), -1)
        if numbers.shape[1] != len(self.mean) or not numpy.isfinite(numbers).all():
            raise LabelMismatchError(
                f"the training targets have shape {numbers.shape} and the head gives {len(self.mean)} values; "
                "num_outputs is the number of finite values per sample."
            )
        spread = numbers.std(0)
        self.mean.copy_(torch.from_numpy(numbers.mean(0)))
        self.sd.copy_(torch.from_numpy(numpy.where(spread > 0, spread, 1.0)))
        self.known.fill_(True)

    def forward(self, scaled: Tensor) -> Tensor:
        """In the targets' units. scaled: (n, values)"""
        return self.mean + self.sd * scaled

    def scaled(self, values: Tensor) -> Tensor:
        """In units of the targets' spread. values: (n, values) in their own."""
        return (values - self.mean) / self.sd
