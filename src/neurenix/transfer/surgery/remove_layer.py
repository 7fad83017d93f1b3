"""Layers less: what follows them reads what they were given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from ...errors import ConfigurationError, EditError
from ...nn import Extended, Skip
from ._changes import Changes
from ._edit import EDITS, Edit, Trial, perform, shown
from ._layer_records import describe_layer
from ._places import Which, extension_of, places_of


def remove_layer(
    model: nn.Module,
    layers: Which,
    *,
    bridge: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
    inputs: Any = None,
) -> dict[str, Any]:
    """Take layers out; what follows each of them reads what the layer was given. Gives the edit's record.

    The names of all other layers stay. A layer that add_layer put there is taken out whole, so that adding and removing
    leaves every byte.

    Args:
        model: from load_pretrained_model, or any torch module. It is changed in place.
        layers: names or globs (`blocks.11`, `layer4.*`), classes (nn.Dropout), or what says yes or no to a layer.
        bridge: put a new linear layer (a 1x1 convolution for maps) where a layer changed the shape of what it was
            given; else that is an error.
        optimizer: trains the model; it forgets the parameters of what is taken out.
        inputs: a batch that the model reads, to try the edit out with; None for one made by its preprocessing.

    Raises:
        EditError: a layer changes shapes and there is no bridge, or it shares a parameter with one that stays, or what
            follows cannot do without it. The model is as it was.
        UnknownNameError: there is no such layer; ConfigurationError: an argument cannot work.
    """
    trial = Trial.of(model, inputs)
    return perform(trial, removal(trial, places_of(model, layers), bridge), optimizer=optimizer)


def removal(trial: Trial, places: Sequence[str], bridge: bool) -> RemoveLayer:
    """The edit that takes layers out. places: qualified. bridge: see remove_layer, which says what is raised."""
    if "head" in places:
        raise ConfigurationError(
            "the head is no layer between others; load the model with include_top=False, or replace it."
        )
    return RemoveLayer(layers={place: _stand_in(trial, place, bridge) for place in places})


def _stand_in(trial: Trial, place: str, bridge: bool) -> Mapping[str, Any] | None:
    """The description of what stands in a layer's place; None for one that was added, and needs none."""
    inside = extension_of(trial.model, place)
    if inside is not None and place.rpartition(".")[2] in (*inside[1].before, *inside[1].after):
        return None
    flow = trial.before
    given, gave = flow.given.get(place), flow.gave.get(place)
    if given is None or gave is None:
        raise EditError(
            f"{shown(trial.model, [place])} is not called with a tensor and does not give one in a forward pass, so "
            "nothing can stand in its place. The model is as it was."
        )
    if given == gave:
        return describe_layer(Skip(flow.outputs[place]))
    if not bridge or flow.outputs[place]:
        raise EditError(
            f"{shown(trial.model, [place])} makes {gave} of {given}, so what follows could not read what it was given; "
            "bridge=True puts a new linear layer there, which has to be trained. The model is as it was."
        )
    return _bridge(trial, place, given, gave)


def _bridge(trial: Trial, place: str, given: tuple[int, ...], gave: tuple[int, ...]) -> Mapping[str, Any]:
    """A description of the least layer that makes one shape of the other: maps (n, c, h, w), else (n, …, features)."""
    with torch.device("meta"):
        if len(given) == len(gave) == 4:
            stride = (-(-given[2] // gave[2]), -(-given[3] // gave[3]))
            layer: nn.Module = nn.Conv2d(given[1], gave[1], 1, stride=stride)
        else:
            layer = nn.Linear(given[-1], gave[-1])
        made = tuple(layer(torch.empty(given)).shape) if given[:-1] == gave[:-1] or len(given) == 4 else None
    if made != gave:
        raise EditError(
            f"{shown(trial.model, [place])} makes {gave} of {given}, which no linear layer does. The model is as it "
            "was."
        )
    return describe_layer(layer)


@final
@EDITS.register("remove_layer")
@dataclass(frozen=True, kw_only=True)
class RemoveLayer(Edit):
    """layers: qualified name -> description of what stands in its place; None for a layer that was added."""

    layers: Mapping[str, Mapping[str, Any] | None]

    def apply(self, model: nn.Module, changes: Changes) -> None:
        """See Edit."""
        for number, (place, record) in enumerate(self.layers.items()):
            if record is None:
                _take_out(model, place, changes)
            else:
                old = model.get_submodule(place)
                changes.put(model, place, changes.make(record, str(number), old, model))

    def describe(self) -> str:
        """See Edit."""
        names = [name.removeprefix("trunk.") for name in self.layers]
        return f"removing {', '.join(names[:4])}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _take_out(model: nn.Module, place: str, changes: Changes) -> None:
    path, _, name = place.rpartition(".")
    whole = model.get_submodule(path)
    assert isinstance(whole, Extended)
    sides = {
        side: {key: part for key, part in whole.layers_on(side).items() if key != name} for side in ("before", "after")
    }
    rest = Extended(whole.base_layer, **sides).train(whole.training) if any(sides.values()) else whole.base_layer
    changes.put(model, path, rest)
