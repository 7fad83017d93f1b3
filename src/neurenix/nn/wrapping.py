"""Layers of a tuning around layers of a model, which keep their parameters and are called `base_layer` within."""

from __future__ import annotations

from typing import Any

from torch import nn

BASE_LAYER = "base_layer"  # peft's name for it too


class Around(nn.Module):
    """A layer with something around it. What is asked of it and it has not, the layer within answers.

    Models ask their layers for a weight's type, or for a width.
    """

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == BASE_LAYER:
                raise
            return getattr(super().__getattr__(BASE_LAYER), name)


class Wrapper(Around):
    """A layer with something of a tuning beside it, until `unwrap`.

    A model that takes a layer's weight and computes with it itself would pass the wrapper by: see
    transfer.tuners.places, which leaves the layers of such modules alone.
    """


def tensor_of(outputs: Any) -> Any:
    """The tensor of a layer that gives one alone or at the head of a tuple."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def with_tensor(outputs: Any, tensor: Any) -> Any:
    """The outputs with another tensor in place of the first."""
    return (tensor, *outputs[1:]) if isinstance(outputs, tuple) else tensor


def wrap(model: nn.Module, name: str, wrapper: Wrapper) -> None:
    """Put a wrapper in the place of the layer that it wraps. name: qualified, of that layer."""
    model.set_submodule(name, wrapper.train(wrapper.base_layer.training))


def unwrap(model: nn.Module) -> None:
    """Put every wrapped layer back in its place, with the parameters that it always had."""
    for name, module in reversed(list(model.named_modules())):
        if isinstance(module, Wrapper):
            model.set_submodule(name, module.base_layer)
