"""Where each type of adapter goes: pairs of a layer and the wrapper that it gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from ...errors import ConfigurationError
from ...models import PretrainedModel
from ...nn import Adapted, AdaptedInParallel, AdaptedJoin, AdaptedNorm, AdaptedOutput, Bottleneck
from ...registry import Registry
from .places import Place, layers_of

Placed = list[tuple[Place, Callable[[nn.Module, Bottleneck], Adapted]]]
ADAPTER_TYPES: Registry[Callable[[PretrainedModel, Sequence[Place]], Placed]] = Registry("adapter_type")


@ADAPTER_TYPES.register("houlsby")
def houlsby(model: PretrainedModel, blocks: Sequence[Place]) -> Placed:
    """Behind attention and feed-forward part, before their residual connections; else behind each block."""
    names = [block.name for block in blocks]
    found = [*layers_of(model, "attention.output", names), *layers_of(model, "mlp.out", names)]
    return [(place, AdaptedOutput) for place in found or blocks]


@ADAPTER_TYPES.register("pfeiffer")
def pfeiffer(model: PretrainedModel, blocks: Sequence[Place]) -> Placed:
    """At the norm that follows the feed-forward part's residual connection; behind each block where none follows."""
    norms = layers_of(model, "mlp.norm_after", [block.name for block in blocks])
    return [(place, AdaptedNorm) for place in norms] or [(place, AdaptedOutput) for place in blocks]


@ADAPTER_TYPES.register("parallel")
def parallel(model: PretrainedModel, blocks: Sequence[Place]) -> Placed:
    """Beside the feed-forward part, which has to be declared: its input cannot be told from the structure."""
    names = [block.name for block in blocks]
    joins = layers_of(model, "mlp.join", names)
    placed: Placed = [(place, AdaptedJoin) for place in joins]
    placed = placed or [(place, AdaptedInParallel) for place in layers_of(model, "mlp", names)]
    if not placed:
        raise ConfigurationError(
            f"adapter_type='parallel' needs a model that declares its feed-forward parts, and {model.name} does not; "
            "take adapter_type='houlsby' or 'pfeiffer'."
        )
    return placed
