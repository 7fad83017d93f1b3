"""What an edit does to a model, and how it is taken back."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from ...nn import Extended
from ._layer_records import Record, build_layer
from ._trial import HOOKS


@final
class Changes:
    """The only way in which edits change a model.

    tensors: numbers of the layers that are made, by "key.name"; layers without some begin as torch draws them, by the
    same seed each time.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.made: dict[str, nn.Module] = {}
        self.successors: list[tuple[nn.Parameter, nn.Parameter]] = []  # (old, new) of resized parameters
        self.displaced: list[Any] = []  # what an optimizer knew of parameters that are gone, see _optimizers
        self._tensors = tensors
        self._steps: list[tuple[nn.Module, str, Any]] = []  # (owner, attribute or child, what it was)

    def make(self, record: Record, key: str, like: nn.Module, model: nn.Module) -> nn.Module:
        """A layer by its description, in the mode of the one it stands for or by, on its device and in its type.

        Where that has no numbers, they are those of the model.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = build_layer(record)
        known = {
            name.removeprefix(f"{key}."): tensor for name, tensor in self._tensors.items() if name.startswith(f"{key}.")
        }
        if known:
            layer.load_state_dict(known)
        numbers = itertools.chain(like.parameters(), model.parameters())
        reference = next((tensor for tensor in numbers if tensor.is_floating_point()), None)
        if reference is not None:
            layer.to(device=reference.device, dtype=reference.dtype)
        self.made[key] = layer.train(like.training)
        return layer

    def put(self, model: nn.Module, name: str, layer: nn.Module) -> None:
        """Put a layer in the place of another one, whose hooks go over to it. name: qualified."""
        path, _, child = name.rpartition(".")
        owner, old = model.get_submodule(path), model.get_submodule(name)
        if not isinstance(layer, Extended) and not isinstance(old, Extended):
            for hooks in HOOKS:
                setattr(layer, hooks, getattr(old, hooks))
        self.set(owner, child, layer)

    def set(self, owner: nn.Module, attribute: str, value: Any) -> None:
        """Set a layer's attribute, parameter or child."""
        self._steps.append((owner, attribute, getattr(owner, attribute)))
        _set(owner, attribute, value)

    def resize(self, owner: nn.Module, name: str, parameter: nn.Parameter) -> None:
        """Put another parameter in the place of one of another size; one that is known already stays tied."""
        self.successors.append((owner.get_parameter(name), parameter))
        self.set(owner, name, parameter)

    def undo(self) -> None:
        """Make the model what it was. The layers that come back keep what they have learned since."""
        for owner, attribute, value in reversed(self._steps):
            _set(owner, attribute, value)

    def put_aside(self, model: nn.Module) -> dict[str, Tensor]:
        """The numbers of what the edit took out of the model, without which it could not be undone."""
        there = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
        found: dict[str, Tensor] = {}
        for number, (_, _, old) in enumerate(self._steps):
            if isinstance(old, nn.Module):
                tensors = [*old.named_parameters(), *old.named_buffers()]
                found |= {f"{number}.{name}": tensor.detach() for name, tensor in tensors if id(tensor) not in there}
            elif isinstance(old, Tensor) and id(old) not in there:
                found[str(number)] = old.detach()
        return found

    def get_back(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Give what is put aside the numbers that put_aside gave. Raises KeyError or RuntimeError for others."""
        with torch.no_grad():
            for name, tensor in self.put_aside(model).items():
                tensor.copy_(tensors[name])

    def initial_tensors(self) -> dict[str, Tensor]:
        """The numbers of all layers that were made, as they are now."""
        return {
            f"{key}.{name}": tensor.detach().clone()
            for key, layer in self.made.items()
            for name, tensor in layer.state_dict().items()
        }


def _set(owner: nn.Module, attribute: str, value: Any) -> None:
    if isinstance(value, nn.Module):
        owner._modules[attribute] = value  # children of sequences have numbers for names
    else:
        setattr(owner, attribute, value)
