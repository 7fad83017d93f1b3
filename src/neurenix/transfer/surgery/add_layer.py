"""A layer more, after or before another one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from ...errors import ConfigurationError, EditError
from ...models import display_name
from ...nn import BASE_LAYER, Extended, Residual
from ._changes import Changes
from ._edit import EDITS, Edit, Trial, perform
from ._layer_records import describe_layer
from ._places import one_place

_KEY = "layer"


def add_layer(
    model: nn.Module,
    layer: nn.Module,
    *,
    after: str | None = None,
    before: str | None = None,
    name: str = "added",
    residual: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
    inputs: Any = None,
) -> dict[str, Any]:
    """Put a layer behind or in front of another one, which keeps its name and its parameters; gives the edit's record.

    Args:
        model: from load_pretrained_model, or any torch module. It is changed in place.
        layer: is copied. Of a class in torch.nn, or made known by register_layer.
        after, before: the layer's neighbour, by name; one of the two.
        name: of the new layer, below its neighbour: `layer2.added`.
        residual: x + layer(x), where the layer begins by giving zeros, so that the model gives what it gave before:
            its last linear, convolutional or norm layer begins with zeros.
        optimizer: trains the model; the new parameters join the group of the layer in front of them.
        inputs: a batch that the model reads, to try the edit out with; None for one made by its preprocessing.

    Raises:
        EditError: the layers behind it cannot read what it gives, or the layer cannot be recorded. The model is as it
            was.
        UnknownNameError: there is no layer `after` or `before`; ConfigurationError: an argument cannot work.
    """
    side, neighbour = _side(after, before)
    trial = Trial.of(model, inputs)
    place = one_place(model, neighbour)
    if not isinstance(layer, nn.Module):
        raise ConfigurationError(f"layer= takes a layer, such as nn.Linear(64, 64); this is {layer!r}.")
    if residual:
        flowing = trial.before.given if side == "before" else trial.before.gave
        layer = Residual(_zeroed(copy.deepcopy(layer), flowing.get(place)))
    edit = AddLayer(place=place, side=side, name=name, layer=describe_layer(layer))
    tensors = {f"{_KEY}.{key}": tensor for key, tensor in layer.state_dict().items()}
    return perform(trial, edit, optimizer=optimizer, tensors=tensors)


@final
@EDITS.register("add_layer")
@dataclass(frozen=True, kw_only=True)
class AddLayer(Edit):
    """place: qualified name of the neighbour. side: of the neighbour, "before" or "after". layer: its description."""

    place: str
    side: str
    name: str
    layer: Mapping[str, Any]

    def apply(self, model: nn.Module, changes: Changes) -> None:
        """The neighbour stands within an nn.Extended from then on."""
        whole = self.place.removesuffix(f".{BASE_LAYER}")
        current = model.get_submodule(whole)
        base = current.base_layer if isinstance(current, Extended) else current
        taken = {BASE_LAYER, *dict(current.named_children() if isinstance(current, Extended) else [])}
        if (
            not self.name.isidentifier()
            or self.name in taken
            or hasattr(base, self.name)
            or hasattr(Extended, self.name)
        ):
            raise EditError(
                f"{display_name(model, whole)!r} cannot get a layer called {self.name!r}: that name is taken there, or "
                "is no name of an attribute. Give another one: name=…. The model is as it was."
            )
        layer = changes.make(self.layer, _KEY, base, model)
        sides = {side: current.layers_on(side) if isinstance(current, Extended) else {} for side in ("before", "after")}
        if self.side == "after":
            sides["after"][self.name] = layer
        else:  # right in front of the neighbour, behind what was put there earlier
            sides["before"][self.name] = layer
        changes.put(model, whole, Extended(base, **sides).train(base.training))

    def describe(self) -> str:
        """See Edit."""
        return f"adding {self.layer['kind']} {self.name!r} {self.side} {_plain(self.place)!r}"


def _side(after: str | None, before: str | None) -> tuple[str, str]:
    if (after is None) == (before is None):
        raise ConfigurationError("say where the layer goes: after=… or before=…, one of the two.")
    return ("after", after) if after is not None else ("before", str(before))


def _plain(place: str) -> str:
    return ".".join(part for part in place.split(".") if part not in ("trunk", BASE_LAYER))


def _zeroed(layer: nn.Module, shape: tuple[int, ...] | None) -> nn.Module:
    """The layer with zeros in the last part that has a weight. Raises EditError where it would not give zeros so, or
    would never learn.
    """
    weighted = [part for part in layer.modules() if isinstance(getattr(part, "weight", None), nn.Parameter)]
    if not weighted or shape is None:
        raise EditError(
            "residual=True needs a layer with weights, in a place where a tensor comes by: its last weights begin with "
            "zeros. The model is as it was."
        )
    for parameter in weighted[-1].parameters(recurse=False):
        nn.init.zeros_(parameter)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        trial = copy.deepcopy(layer).float().cpu().eval()
        outputs = _tried(trial, torch.randn(shape))
        if outputs.shape != torch.Size(shape):
            raise EditError(
                f"residual=True adds what the layer gives to what it is given, and it makes {tuple(outputs.shape)} of "
                f"{tuple(shape)}; the two have to be of one shape. The model is as it was."
            )
        learnt = torch.autograd.grad(outputs.sum(), list(trial.parameters()), allow_unused=True)
    moved = any(gradient is not None and bool(gradient.any()) for gradient in learnt)
    if bool(outputs.any()) or not moved:
        raise EditError(
            "residual=True needs a layer that gives zeros when its last weights are zero, and can learn from there; "
            "end it with a linear or convolutional layer, without an activation behind. The model is as it was."
        )
    return layer


def _tried(layer: nn.Module, features: Tensor) -> Tensor:
    try:
        outputs: Tensor = layer(features)
    except RuntimeError as error:
        raise EditError(
            f"the layer cannot read what comes by there, {tuple(features.shape)}: {str(error).splitlines()[0]} The "
            "model is as it was."
        ) from error
    return outputs
