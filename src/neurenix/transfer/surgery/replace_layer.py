"""Other layers in the places of layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from ...errors import ConfigurationError
from ...models import PretrainedModel
from ._changes import Changes
from ._edit import EDITS, Edit, Trial, perform
from ._layer_records import describe_layer
from ._places import Which, places_of


def replace_layer(
    model: nn.Module,
    layers: Which,
    replacement: nn.Module | Callable[[nn.Module], nn.Module],
    *,
    optimizer: torch.optim.Optimizer | None = None,
    inputs: Any = None,
) -> dict[str, Any]:
    """Put another layer in the place of each layer that is meant; gives the edit's record.

    Hooks of the old layers go over to the new ones, as do their device, type and mode.

    Args:
        model: from load_pretrained_model, or any torch module. It is changed in place.
        layers: names or globs (`layer4.*.conv2`), classes (nn.ReLU), or what says yes or no to a layer.
        replacement: a layer, of which each place gets a copy, or what makes one of the old layer:
            `lambda old: nn.GroupNorm(8, old.num_features)`. Of a class in torch.nn, or made known by register_layer.
        optimizer: trains the model; the new parameters join the group of the layer in front of them.
        inputs: a batch that the model reads, to try the edit out with; None for one made by its preprocessing.

    Raises:
        EditError: what follows cannot read what a new layer gives, an old one shares a parameter with a layer that
            stays, or a layer cannot be recorded. The model is as it was.
        UnknownNameError: there is no such layer; ConfigurationError: an argument cannot work.
    """
    trial = Trial.of(model, inputs)
    return replace_places(trial, places_of(model, layers), replacement, optimizer)


def replace_places(
    trial: Trial,
    places: list[str],
    replacement: nn.Module | Callable[[nn.Module], nn.Module],
    optimizer: torch.optim.Optimizer | None,
) -> dict[str, Any]:
    """The same for places by their qualified names."""
    made = {place: _made(trial.model.get_submodule(place), replacement) for place in places}
    edit = ReplaceLayer(layers={place: describe_layer(layer) for place, layer in made.items()})
    tensors = {
        f"{number}.{name}": tensor
        for number, layer in enumerate(made.values())
        for name, tensor in layer.state_dict().items()
    }
    return perform(trial, edit, optimizer=optimizer, tensors=tensors)


@final
@EDITS.register("replace_layer")
@dataclass(frozen=True, kw_only=True)
class ReplaceLayer(Edit):
    """layers: qualified name -> description of the new layer."""

    layers: Mapping[str, Mapping[str, Any]]

    def apply(self, model: nn.Module, changes: Changes) -> None:
        """See Edit."""
        for number, (place, record) in enumerate(self.layers.items()):
            old = model.get_submodule(place)
            if place == "head" and isinstance(model, PretrainedModel):
                changes.set(model, "categories", ())
            changes.put(model, place, changes.make(record, str(number), old, model))

    def describe(self) -> str:
        """See Edit."""
        names = [name.removeprefix("trunk.") for name in self.layers]
        return f"replacing {', '.join(names[:4])}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _made(old: nn.Module, replacement: nn.Module | Callable[[nn.Module], nn.Module]) -> nn.Module:
    if isinstance(replacement, type):
        raise ConfigurationError(
            f"replacement={replacement.__name__} is a class; give a layer, {replacement.__name__}(…), or a function "
            "that makes one of the old layer."
        )
    new = copy.deepcopy(replacement) if isinstance(replacement, nn.Module) else replacement(old)
    if not isinstance(new, nn.Module):
        raise ConfigurationError(f"the replacement of {type(old).__name__} is {new!r}, which is no layer.")
    return new
