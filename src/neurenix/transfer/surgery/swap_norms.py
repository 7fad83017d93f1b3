"""Norms of another kind, with the scale and shift that were learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ...errors import ConfigurationError, EditError
from ...nn import FixedNorm
from ...registry import Registry
from ._edit import Trial
from ._places import Which, places_within
from .replace_layer import replace_places

_MOST_GROUPS = 32  # as in Wu & He, Group Normalization, ECCV 2018, section 4
_BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_INSTANCE = {nn.BatchNorm1d: nn.InstanceNorm1d, nn.BatchNorm2d: nn.InstanceNorm2d, nn.BatchNorm3d: nn.InstanceNorm3d}

NORMS: Registry[Callable[[nn.Module], nn.Module | None]] = Registry("kind of norm")


def swap_norms(
    model: nn.Module,
    to: str,
    layers: Which | None = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    inputs: Any = None,
) -> dict[str, Any]:
    """Make norms of another kind of those that can be made into it, keeping scale and shift; gives the edit's record.

    Args:
        model: from load_pretrained_model, or any torch module. It is changed in place.
        to: "group": batch norms become group norms of up to 32 groups, which do not look at the batch; "instance":
            likewise of each sample and channel; "fixed": batch norms keep their statistics, scale and shift for good,
            so that in evaluation the model gives what it gave; "rms": layer norms are no longer centred.
        layers: which norms, see replace_layer; None for all that can be.
        optimizer, inputs: see replace_layer.

    Raises:
        UnknownNameError: there is no such kind. EditError: no norm of the model can be made into it.
    """
    convert = NORMS[to]
    trial = Trial.of(model, inputs)
    within = places_within(model, layers, lambda layer: convert(layer) is not None)
    if not within:
        kinds = sorted({type(part).__name__ for part in model.modules() if "Norm" in type(part).__name__})
        raise EditError(f"the model has no norm that {to!r} could be made of; its norms: {', '.join(kinds) or 'none'}.")
    return replace_places(trial, within, lambda old: _with_rest(old, convert(old)), optimizer)


@NORMS.register("group", "group_norm", "gn")
def group_norm(old: nn.Module) -> nn.Module | None:
    """A batch norm as the group norm with the most groups, up to 32, that its channels can be split into."""
    if not isinstance(old, _BATCH):
        return None
    groups = max(count for count in range(1, _MOST_GROUPS + 1) if old.num_features % count == 0)
    return _with_affine(nn.GroupNorm(groups, old.num_features, eps=old.eps), old)


@NORMS.register("instance", "instance_norm")
def instance_norm(old: nn.Module) -> nn.Module | None:
    """A batch norm as the instance norm of as many dimensions."""
    for kind, instance in _INSTANCE.items():
        if isinstance(old, kind):
            return _with_affine(instance(old.num_features, eps=old.eps, affine=True), old)
    return None


@NORMS.register("fixed", "frozen")
def fixed_norm(old: nn.Module) -> nn.Module | None:
    """A batch norm as what it does in evaluation."""
    if not isinstance(old, _BATCH) or old.running_mean is None or old.running_var is None:
        return None
    new = _with_affine(FixedNorm(old.num_features, old.eps), old)
    for name in ("running_mean", "running_var"):
        new.get_buffer(name).copy_(getattr(old, name))
    return new


@NORMS.register("rms", "rms_norm")
def rms_norm(old: nn.Module) -> nn.Module | None:
    """A layer norm without the mean; its shift is left out (Zhang & Sennrich, Root Mean Square Layer Normalization,
    NeurIPS 2019, eq. 4).
    """
    if not isinstance(old, nn.LayerNorm):
        return None
    new = nn.RMSNorm(list(old.normalized_shape), eps=old.eps, elementwise_affine=old.weight is not None)
    if old.weight is not None:
        with torch.no_grad():
            new.weight.copy_(old.weight)
    return new


def _with_affine(new: nn.Module, old: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name in ("weight", "bias"):
            value = getattr(old, name)
            if value is not None:
                getattr(new, name).copy_(value)
    return new


def _with_rest(old: nn.Module, new: nn.Module | None) -> nn.Module:
    """The new norm with what a norm of timm does behind itself: an activation, a dropout."""
    if new is None:
        raise ConfigurationError(f"{type(old).__name__} cannot be swapped.")
    rest = [part for part in old.children() if not isinstance(part, nn.Identity)]
    return nn.Sequential(new, *rest) if rest else new
