"""A layer with further layers before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from torch import nn

from .wrapping import Around, tensor_of, with_tensor


@final
class Residual(nn.Module):
    """x + layer(x): with a layer that begins by giving zeros, the same as without it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Any) -> Any:
        """Features in, features of the same shape out."""
        return features + self.layer(features)


@final
class Extended(Around):
    """before[0], before[1], …, base_layer, after[0], after[1], …; each reads what the one in front of it gives.

    What else the base layer is given goes to it alone. Where it gives a tuple, the layers after it change its first
    tensor. before, after: by the names that they get in this module.
    """

    def __init__(self, base_layer: nn.Module, before: Mapping[str, nn.Module], after: Mapping[str, nn.Module]) -> None:
        super().__init__(base_layer)
        self.before, self.after = tuple(before), tuple(after)
        for name, layer in {**before, **after}.items():
            self.add_module(name, layer)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """What the base layer takes and gives."""
        if self.before:
            key = None if arguments else next(iter(named))
            features = arguments[0] if key is None else named[key]
            for name in self.before:
                features = self.get_submodule(name)(features)
            if key is None:
                arguments = (features, *arguments[1:])
            else:
                named = {**named, key: features}
        outputs = self.base_layer(*arguments, **named)
        for name in self.after:
            outputs = with_tensor(outputs, self.get_submodule(name)(tensor_of(outputs)))
        return outputs

    def layers_on(self, side: str) -> dict[str, nn.Module]:
        """The layers on one side, "before" or "after", by name and in order."""
        return {name: self.get_submodule(name) for name in (self.before if side == "before" else self.after)}


@final
class Skip(nn.Module):
    """Stands where a layer was, and gives what it is given: the first tensor.

    outputs: how many values the layer gave in a tuple, of which the others become None; 0 for a tensor alone.
    """

    def __init__(self, outputs: int = 0) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """What came first."""
        features = arguments[0] if arguments else next(iter(named.values()))
        return (features, *[None] * (self.outputs - 1)) if self.outputs else features

    def extra_repr(self) -> str:
        """What print(model) shows of it."""
        return f"outputs={self.outputs}" if self.outputs else ""
