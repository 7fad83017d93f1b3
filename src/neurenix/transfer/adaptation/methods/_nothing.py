"""What several terms need to say that there is nothing to learn from."""

from __future__ import annotations

from torch import Tensor

from ..method import Side


def nothing(side: Side) -> Tensor:
    """A loss () of 0 that hangs on the model, for a domain without samples."""
    return side.outputs.sum() * 0.0 + side.features.sum() * 0.0
