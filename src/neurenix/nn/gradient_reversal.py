"""Identity forward, reversed gradient backward."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor


@final
class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor, strength: float) -> Tensor:
        context.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -context.strength * gradients[0], None


def reverse_gradient(values: Tensor, strength: float = 1.0) -> Tensor:
    """R(x) = x with dR/dx = -strength · I. Ganin & Lempitsky, ICML 2015, equation 6. values: (…) -> (…)."""
    reversed_values: Tensor = _Reversed.apply(values, strength)
    return reversed_values
