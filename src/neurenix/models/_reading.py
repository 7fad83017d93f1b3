"""What layers inside a trunk give while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from ..errors import ConfigurationError
from ..nn.wrapping import tensor_of


def outputs_of_layers(trunk: nn.Module, layers: Sequence[str], inputs: Any) -> tuple[Any, ...]:
    """The outputs of a trunk's layers in one forward pass, in the order of their names; a tuple's first tensor.

    Raises ConfigurationError for a layer that is not called, or more than once.
    """
    found: dict[str, list[Any]] = {name: [] for name in layers}

    def keeping(name: str) -> Callable[..., None]:
        return lambda module, arguments, output: found[name].append(tensor_of(output))

    handles = [trunk.get_submodule(name).register_forward_hook(keeping(name)) for name in found]
    try:
        trunk(inputs)
    finally:
        for handle in handles:
            handle.remove()
    for name, outputs in found.items():
        if len(outputs) != 1:
            raise ConfigurationError(
                f"the head reads what layer {name!r} gives, and one forward pass calls it {len(outputs)} times; it has "
                "to be called once."
            )
    return tuple(found[name][0] for name in layers)
