"""Scales and shifts folded into the weights of the layers that they belong to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigurationError
from ...nn import ScaledInput, ScaledShifted
from .places import is_transposed


@torch.no_grad()
def fold_scales(model: nn.Module) -> None:
    """Take γ and β into weight W and bias b of each layer: γ ⊙ (W x + b) + β has γ ⊙ W and γ ⊙ b + β."""
    for name, module in reversed(list(model.named_modules())):
        if isinstance(module, ScaledShifted):
            _fold_outputs(module)
        elif isinstance(module, ScaledInput):
            weight = module.base_layer.get_parameter("weight")
            scale = module.scale.unsqueeze(-1) if is_transposed(module.base_layer) else module.scale
            weight.copy_(weight * scale)  # (m, d) or (d, m), each of the d input features
        else:
            continue
        model.set_submodule(name, module.base_layer)


def _fold_outputs(module: ScaledShifted) -> None:
    layer: Any = module.base_layer
    scale, shift = module.whole()
    rows = scale if is_transposed(layer) else scale.reshape(-1, *(1,) * (layer.weight.ndim - 1))
    layer.weight.copy_(layer.weight * rows)
    bias: Tensor | None = getattr(layer, "bias", None)
    if bias is not None:
        bias.copy_(bias * scale + shift)
    elif bool(shift.any()):
        if not hasattr(layer, "bias"):
            raise ConfigurationError(f"{type(layer).__name__} has no place for a bias, so a shift cannot be folded in.")
        layer.bias = nn.Parameter(shift.clone())
