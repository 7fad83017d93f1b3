"""Layers as JSON: what a recorded edit holds of a layer, and how the layer is made of it again."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ...errors import EditError
from ...nn import FeatureTokens, FixedNorm, Residual, SeriesPatches, Skip
from ...registry import Registry

Record = Mapping[str, Any]

LAYERS: Registry[type[nn.Module]] = Registry(
    "kind of layer", hint="neurenix.transfer.register_layer makes one of your own known."
)
for _layer in (
    *(nn.Linear, nn.Bilinear, nn.Identity, nn.Flatten, nn.Unflatten, nn.Embedding, Residual),
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LocalResponseNorm),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.GLU, nn.Softmax),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
    *(nn.AdaptiveMaxPool2d, nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle, nn.ZeroPad2d, nn.ReflectionPad2d),
    *(nn.Sequential, Skip, FixedNorm, FeatureTokens, SeriesPatches),
):
    LAYERS.add(_layer.__name__, _layer)

_HOLDS_LAYERS = (nn.Sequential, Residual)
_LEFT_OUT = {"device", "dtype"}  # those of the model


def register_layer(kind: type[nn.Module]) -> type[nn.Module]:
    """Make layers of a class of your own known, so that edits with them can be recorded, saved and done again.

    What its constructor takes has to be there as attributes of the same names, numbers, texts or yes and no. Loading a
    model in another process needs the same call before. Usable as a decorator.
    Raises ConfigurationError for a name that is taken.
    """
    LAYERS.add(kind.__name__, kind)
    return kind


def describe_layer(layer: nn.Module) -> dict[str, Any]:
    """{"kind": class name, "arguments": {…}[, "layers": {name: description}]}.

    Raises EditError for a layer of a class that is not known, or whose attributes do not tell how it was made.
    """
    kind = type(layer)
    if kind.__name__ not in LAYERS or LAYERS[kind.__name__] is not kind:
        raise EditError(
            f"a layer of class {kind.__name__} cannot be recorded, so a model with it could not be loaded again; known "
            f"are {', '.join(LAYERS)}. Make yours known with neurenix.transfer.register_layer({kind.__name__})."
        )
    if isinstance(layer, _HOLDS_LAYERS):
        inner = {name: describe_layer(part) for name, part in layer.named_children()}
        return {"kind": kind.__name__, "arguments": {}, "layers": inner}
    return {"kind": kind.__name__, "arguments": {name: _argument(layer, name) for name in _parameters(kind)}}


def build_layer(record: Record) -> nn.Module:
    """The layer of a description; its numbers are drawn by torch's random state, which the caller guards."""
    kind = LAYERS[record["kind"]]
    if "layers" not in record:
        return kind(**{name: _as_taken(value) for name, value in record["arguments"].items()})
    inner = {name: build_layer(part) for name, part in record["layers"].items()}
    if kind is Residual:
        return Residual(inner["layer"])
    holder = kind()
    for name, part in inner.items():
        holder.add_module(name, part)
    return holder


def _parameters(kind: type[nn.Module]) -> list[str]:
    """Names of what a class's constructor takes. Raises EditError for one that takes whatever comes."""
    if kind is nn.Identity:  # which does, and needs none of it
        return []
    taken = [parameter for name, parameter in inspect.signature(kind).parameters.items() if name not in _LEFT_OUT]
    if any(parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) for parameter in taken):
        raise EditError(f"{kind.__name__} takes arguments without names, so a layer of it cannot be recorded.")
    return [parameter.name for parameter in taken if not parameter.name.startswith("_")]


def _argument(layer: nn.Module, name: str) -> Any:
    if name == "bias":
        return getattr(layer, "bias", None) is not None
    if name == "inplace":
        return False  # what is added may not write over what others read
    if not hasattr(layer, name):
        raise EditError(
            f"{type(layer).__name__} takes {name!r} and keeps no attribute of that name, so a layer of it cannot be "
            f"recorded; write self.{name} = {name} in its constructor."
        )
    return _as_json(layer, name, getattr(layer, name))


def _as_json(layer: nn.Module, name: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list, torch.Size)):
        return [_as_json(layer, name, item) for item in value]
    raise EditError(
        f"{type(layer).__name__}.{name} is of type {type(value).__name__}; only numbers, texts, yes and no, and lists "
        "of them can be recorded."
    )


def _as_taken(value: Any) -> Any:
    return tuple(_as_taken(item) for item in value) if isinstance(value, list) else value
