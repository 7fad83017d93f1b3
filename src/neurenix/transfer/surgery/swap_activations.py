"""Activations of another kind."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...errors import EditError
from ...nn import ACTIVATIONS
from ._edit import Trial
from ._places import Which, places_within
from .replace_layer import replace_places

# what stands between layers; sigmoids and tangents are left alone, because they are gates where networks have them
_BETWEEN = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
)
_BY_NAME = {
    "GELUActivation",
    "NewGELUActivation",
    "FastGELUActivation",
    "QuickGELUActivation",
    "SiLUActivation",
    "Swish",
}


def swap_activations(
    model: nn.Module,
    to: str,
    layers: Which | None = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    inputs: Any = None,
) -> dict[str, Any]:
    """Put activations of another kind between the layers, e.g. ReLU for what an edge device cannot do; gives the
    edit's record. The model has to be trained afterwards.

    Args:
        model: from load_pretrained_model, or any torch module. It is changed in place.
        to: a name in nn.ACTIVATIONS: relu, gelu, silu, leaky_relu, elu, mish, …
        layers: which, see replace_layer; None for all. Sigmoids and tangents are gates and stay.
        optimizer, inputs: see replace_layer.

    Raises:
        UnknownNameError: there is no such activation. EditError: the model has none that is a layer.
    """
    kind = ACTIVATIONS[to]
    trial = Trial.of(model, inputs)
    names = places_within(model, layers, lambda layer: isinstance(layer, _BETWEEN) or type(layer).__name__ in _BY_NAME)
    if not names:
        raise EditError(
            "the model has no activation there that is a layer of its own; those that a forward method calls as "
            "functions cannot be swapped. neurenix.transfer.layer_names(model) lists the layers."
        )
    return replace_places(trial, names, lambda old: kind(), optimizer)
