"""Task heads: pooled features in, logits or values out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..errors import ConfigurationError
from ..registry import Registry

ACTIVATIONS: Registry[type[nn.Module]] = Registry("activation")
for _name, _activation in {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "mish": nn.Mish,
    "identity": nn.Identity,
}.items():
    ACTIVATIONS.add(_name, _activation)


def build_head(
    feature_size: int,
    num_outputs: int,
    *,
    hidden_sizes: Sequence[int] = (),
    activation: str = "relu",
    dropout_rate: float = 0.0,
) -> nn.Module:
    """A linear layer, or a small network when `hidden_sizes` is given: (n, feature_size) -> (n, num_outputs).

    Dropout stands before every linear layer; without dropout and hidden layers the head is a bare nn.Linear.
    """
    if num_outputs < 1 or feature_size < 1:
        raise ConfigurationError(f"a head needs sizes of at least 1; got {feature_size} -> {num_outputs}.")
    if not 0.0 <= dropout_rate < 1.0:
        raise ConfigurationError(f"dropout_rate={dropout_rate}; it is a share of units, at least 0 and below 1.")
    if any(size < 1 for size in hidden_sizes):
        raise ConfigurationError(f"head_hidden_sizes={list(hidden_sizes)}; every size must be at least 1.")
    between = ACTIVATIONS[activation]
    layers: list[nn.Module] = []
    width = feature_size
    for size in hidden_sizes:
        layers += [*_dropout(dropout_rate), nn.Linear(width, size), between()]
        width = size
    layers += [*_dropout(dropout_rate), nn.Linear(width, num_outputs)]
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def _dropout(rate: float) -> list[nn.Module]:
    return [nn.Dropout(rate)] if rate else []
