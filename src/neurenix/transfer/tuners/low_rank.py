"""peft's low-rank layers in our models: where they go, how they come in and out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from ...errors import ConfigurationError
from ...models import PretrainedModel, covered, display_name, match_layers
from ...nn import FrameVectors
from .places import is_transposed, layers_of, linear_layers, names_within

if TYPE_CHECKING:
    from .lora import LoraSettings

ADAPTER = "default"  # peft's name for the only one
LINEAR_STARTS = ("pissa", "olora", "orthogonal")  # in peft
_USUAL = ("attention.query", "attention.value", "attention.qkv")


def inner(model: PretrainedModel) -> nn.Module:
    """The module of the library or the user, whose own names of layers peft's files speak of."""
    trunk = model.trunk.base_layer if isinstance(model.trunk, FrameVectors) else model.trunk
    return trunk if model.architecture is not None else trunk.get_submodule("module")


def target_names(
    model: PretrainedModel, targets: Sequence[str] | None, layers: Sequence[str] | str | int | None
) -> list[str]:
    """Names, as displayed, of the layers that get updates. targets: roles, names or globs; layers: see blocks."""
    able = [place.name for place in linear_layers(model) if _can_be_updated(place.module)]
    roles = model.architecture.roles if model.architecture else {}
    if targets is None:
        usual = [place.name for role in _USUAL for place in layers_of(model, role)]
        found = usual or able
    else:
        found = [name for target in targets for name in match_layers(model, roles.get(target, target))]
        found = [name for name in able if covered(name, found)]
        if not found:
            raise ConfigurationError(
                f"target_layers={list(targets)!r} holds no linear layer, nor a convolution of one group without gaps; "
                f"roles: {', '.join(roles) or 'none'}."
            )
    within, chosen = names_within(model, layers), set(found)
    names = [name for name, _ in model.named_modules() if name in chosen and covered(name, within)]
    if not names:
        raise ConfigurationError(f"layers={layers!r} holds none of the layers that would get an update.")
    return [display_name(model, name) for name in names]


def _can_be_updated(layer: nn.Module) -> bool:
    """Peft's update of a convolution knows groups only in multiples of the rank, and no dilation."""
    return getattr(layer, "groups", 1) == 1 and set(getattr(layer, "dilation", ())) <= {1}


def inject(model: PretrainedModel, names: Sequence[str], settings: LoraSettings) -> None:
    """Put low-rank updates beside the layers of these names."""
    from peft import inject_adapter_in_model

    layers = {name: inner(model).get_submodule(name) for name in names}
    others = [name for name, layer in layers.items() if not isinstance(layer, nn.Linear)]
    if others and settings.start in LINEAR_STARTS:
        raise ConfigurationError(
            f"start={settings.start!r} is made for linear layers alone, and {others[0]} is none; take start='zero', or "
            "name linear layers in target_layers."
        )
    transposed = any(is_transposed(layer) for layer in layers.values())
    inject_adapter_in_model(configuration(names, settings, transposed), inner(model), ADAPTER)


def configuration(names: Sequence[str], settings: LoraSettings, transposed: bool) -> Any:
    """What peft calls it. transposed: weights are (inputs, outputs)."""
    from peft import LoraConfig

    starts: dict[str, bool | str] = {"zero": True}
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.scale,  # type: ignore[arg-type]
        lora_dropout=settings.lora_dropout,
        # one pattern for whole names: in a list, "conv1" would also mean every other layer whose name ends so
        target_modules="(" + "|".join(re.escape(name) for name in names) + ")",
        use_rslora=settings.rank_stabilised,
        fan_in_fan_out=transposed,
        use_dora=settings.weight_decomposed,
        init_lora_weights=starts.get(settings.start, settings.start),  # type: ignore[arg-type]
    )


def remove_low_rank(model: PretrainedModel) -> None:
    """Put the frozen layers back in their places."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in reversed(list(model.named_modules())):
        if isinstance(module, BaseTunerLayer):
            model.set_submodule(name, module.get_base_layer())
    vars(inner(model)).pop("peft_config", None)


def merge_low_rank(model: PretrainedModel) -> None:
    """Add the updates to the weights and put the layers back in their places."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
    remove_low_rank(model)
