"""Heads of one vector per sample that are no plain linear layers, and heads that features can set."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from torch import Tensor, nn


class Solvable(abc.ABC):
    """A head that is set from features and targets at once, before any step is made."""

    @property
    def is_solvable(self) -> bool:
        """Whether it has a closed form as it is made: one with hidden layers has none."""
        return True

    @abc.abstractmethod
    def solve(self, features: Tensor, targets: Tensor) -> None:
        """Set what the head learns. features: (n, feature_size) float32; targets: (n,) or (n, k), those of its loss."""


class VectorHead(nn.Module, abc.ABC):
    """A head that gives logits or values as a linear layer does, (n, feature_size) -> (n, num_outputs), in its own way.

    Losses, strategies and the frozen prefix treat it like a linear layer.
    learns: whether it has anything for an optimizer; a memory has not.
    """

    learns: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def num_outputs(self) -> int:
        """Number of logits or values."""

    @abc.abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Logits or values, (n, num_outputs). features: (n, feature_size)."""

    def class_rows(self) -> Sequence[Tensor]:
        """Parameters (num_outputs, …) of which each row belongs to one output; none where there are no such."""
        return ()

    def target_sd(self) -> Tensor | None:
        """The unit that losses of values compare in, (num_outputs,) in the targets' own; None for just these."""
        return None

    def for_saved(self, state: Mapping[str, Tensor]) -> Self:
        """The same head with room for its saved tensors, where they are not of the size that it begins with."""
        return self
