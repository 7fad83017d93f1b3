"""The one linear layer inside heads of values, set from outside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import ConfigurationError
from ._scaling import TargetScaling
from ._starts import last_linear


def check_is_linear(start: str, hidden_sizes: Sequence[int]) -> None:
    """Raise ConfigurationError for a closed form of a head with hidden layers."""
    if start == "closed_form" and hidden_sizes:
        raise ConfigurationError(
            "start='closed_form' solves a linear head; leave hidden_sizes empty, or take start='default'."
        )


def is_linear(head: nn.Module) -> bool:
    """Whether a head has one linear layer and no more."""
    return sum(isinstance(module, nn.Linear) for module in head.modules()) == 1


@torch.no_grad()
def set_linear(head: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Put weight (k, d) and bias (k,) into the head's one linear layer."""
    linear = last_linear(head)
    assert linear is not None
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)


def scaled_columns(scaling: TargetScaling, targets: Tensor) -> Tensor:
    """(n,) or (n, values) targets on the CPU -> (n, values) float64, in units of their spread."""
    columns = targets.reshape(len(targets), -1).double()
    return (columns - scaling.mean.cpu().double()) / scaling.sd.cpu().double()
