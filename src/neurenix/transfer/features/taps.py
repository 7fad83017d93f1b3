"""Reading what layers give while a model runs, and leaving the model as it was."""

from __future__ import annotations

import contextlib
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from ...errors import ConfigurationError
from ...models._pretrained_model import PretrainedModel
from ...models.layers import covered, display_name, match_layers

Inputs = Tensor | Mapping[str, Tensor]
Reader = Callable[["Tap", nn.Module, Any], Any]


@dataclass(frozen=True)
class Tap:
    """A place to read: `name` as the user writes it, `module` its path in the model ('' is the model itself)."""

    name: str
    module: str


def find_taps(model: nn.Module, layers: Sequence[str]) -> tuple[Tap, ...]:
    """One tap per layer, in the order of `layers`. A wildcard takes the outermost layers that it matches:
    `blocks.*` is each block and not also all that lies in it.
    """
    modules = dict(model.named_modules())
    taps: dict[str, Tap] = {}
    for pattern in layers:
        found = [name for name in match_layers(model, pattern) if name in modules]
        if not found:
            raise ConfigurationError(f"{pattern!r} is a parameter and gives no output; name the layer that uses it.")
        for name in found:
            if not covered(name, [other for other in found if other != name]):
                taps.setdefault(name, Tap(display_name(model, name), name))
    return tuple(taps.values())


def read(model: nn.Module, inputs: Inputs, taps: Sequence[Tap], reader: Reader, *, stop: bool) -> dict[str, Any]:
    """Run the model once and give `reader(tap, module, output)` for each tap, in the order of `taps`.

    stop: leave the forward pass after the last tap; the caller knows that each layer is called only once.
    The reader runs while the layer's output is fresh: a later in-place operation cannot change what it saw.
    """
    found: dict[str, Any] = {}
    calls: Counter[str] = Counter()

    def hook_for(tap: Tap) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            calls[tap.name] += 1
            found[tap.name] = reader(tap, module, output)
            if stop and len(found) == len(taps):
                raise _Enough

        return hook

    handles = [model.get_submodule(tap.module).register_forward_hook(hook_for(tap)) for tap in taps]
    try:
        with contextlib.suppress(_Enough):
            run(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    _check_calls(model, taps, calls)
    return {tap.name: found[tap.name] for tap in taps}


def run(model: nn.Module, inputs: Inputs) -> Any:
    """Call the model; a mapping goes in as keyword arguments when the forward method has them by these names."""
    if isinstance(inputs, Mapping) and not isinstance(model, PretrainedModel) and _takes_keywords(model, inputs):
        return model(**inputs)
    return model(inputs)


def may_stop(model: nn.Module) -> bool:
    """Whether a forward pass may be left early: not where wrappers put weights back after each layer
    (accelerate's offloading, FSDP).
    """
    return not any(hasattr(module, "_hf_hook") or "FSDP" in _class_names(module) for module in model.modules())


def first_tensor(name: str, output: Any) -> Tensor:
    """The tensor in a layer's output: itself, a tuple's first one, a mapping's `last_hidden_state` or only one."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        tensors = {key: value for key, value in output.items() if isinstance(value, Tensor)}
        if "last_hidden_state" in tensors or len(tensors) == 1:
            return tensors.get("last_hidden_state", next(iter(tensors.values())))
    elif isinstance(output, (tuple, list)):
        for value in output:
            if isinstance(value, (Tensor, tuple, list)):
                return first_tensor(name, value)
    held = list(output) if isinstance(output, Mapping) else type(output).__name__
    raise ConfigurationError(
        f"layer {name!r} gives no single tensor (it gives {held}); name a layer inside of it, see "
        "neurenix.transfer.layer_names(model)."
    )


@final
class _Enough(BaseException):
    """Leaves a forward pass. Not an Exception, so that a model's own `except Exception` does not catch it."""


def _check_calls(model: nn.Module, taps: Sequence[Tap], calls: Mapping[str, int]) -> None:
    silent = [tap.name for tap in taps if not calls.get(tap.name)]
    if silent:
        raise ConfigurationError(
            f"{type(model).__name__} did not call {', '.join(map(repr, silent))} in its forward pass, so there is no "
            "output to take (unused, or compiled, scripted, or only read by other layers); name a layer around it."
        )
    repeated = {name: count for name, count in calls.items() if count > 1}
    if repeated:
        name, count = next(iter(repeated.items()))
        raise ConfigurationError(
            f"layer {name!r} is called {count} times in one forward pass, so it has no single output; name the "
            "block around it, or a layer that is called once."
        )


def _takes_keywords(model: nn.Module, inputs: Mapping[str, Tensor]) -> bool:
    parameters = inspect.signature(model.forward).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return takes_any or all(key in parameters for key in inputs)


def _class_names(module: nn.Module) -> str:
    return " ".join(parent.__name__ for parent in type(module).__mro__).replace("FullyShardedDataParallel", "FSDP")


def batch_size(inputs: Inputs) -> int:
    """Number of samples in a batch."""
    return (next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs).shape[0]  # a symbol while exporting


def first_sample(inputs: Inputs) -> Inputs:
    """A batch of the first sample alone."""
    return {key: value[:1] for key, value in inputs.items()} if isinstance(inputs, Mapping) else inputs[:1]


def cast(inputs: Inputs, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Inputs on the model's device, floating point ones in its dtype (token numbers stay integers)."""
    if isinstance(inputs, Mapping):
        return {key: _cast(value, device, dtype) for key, value in inputs.items()}
    return _cast(inputs, device, dtype)


def _cast(value: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    return value.to(device, dtype) if value.is_floating_point() else value.to(device)
