"""What a backend is: it makes a callable of a module that is only run forward, for batches like an example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from ..devices import autocast
from ..errors import NeurenixError
from ..registry import Registry

Inputs = Tensor | Mapping[str, Tensor]
Outputs = Tensor | dict[str, Tensor]
Forward = Callable[[Inputs], Outputs]


class CannotBuild(NeurenixError):
    """A backend cannot run this module; the message says why."""


@final
@dataclass(frozen=True, kw_only=True)
class Backend:
    """build: (module in the modes that it is to have, a real batch, "fp32" | "bf16" | "fp16") -> its forward pass.

    A build may copy weights: it is for weights that stay as they are. Raises CannotBuild.
    usable: (device type, precision) -> whether it is there and can be expected to be faster than eager.
    convolutions, products: precision -> how many times faster than eager in fp32 it has been seen at most, with
        networks that mostly convolve, and with those that mostly multiply matrices; where there is no number it is not
        tried. The one of which most is hoped for is tried first.
    build_seconds: what a build usually takes, to know when it cannot pay.
    rounds: it computes in fewer digits than the precision has, so that only jobs that need not be exact are given it.
    any_shape: it runs samples of other shapes than the example's too, at no price.
    """

    build: Callable[[nn.Module, Inputs, str], Forward]
    usable: Callable[[str, str], bool]
    convolutions: Mapping[str, float]
    products: Mapping[str, float]
    build_seconds: float
    rounds: bool = False
    any_shape: bool = False

    def hope(self, convolves: bool, precision: str) -> float:
        """How many times faster than eager it may be; 0 where it is not tried."""
        return (self.convolutions if convolves else self.products).get(precision, 0.0)


BACKENDS: Registry[Backend] = Registry("backend", hint="'auto' measures and takes the fastest, 'eager' is torch as is")


def check_backend(name: str) -> str:
    """The listed name of a backend, or "auto" or "eager"; raises UnknownNameError."""
    return name if name in ("auto", "eager") else BACKENDS.canonical(name)


def eager(module: nn.Module, device: torch.device, precision: str) -> Forward:
    """The module as it is, in a precision."""

    def forward(inputs: Inputs) -> Outputs:
        with torch.no_grad(), autocast(device, precision):
            outputs: Outputs = module(inputs)
        return outputs

    return forward


def device_of(inputs: Inputs) -> torch.device:
    """Where a batch is."""
    return (inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))).device


def size_of(inputs: Inputs) -> int:
    """Samples in a batch."""
    return len(inputs if isinstance(inputs, Tensor) else next(iter(inputs.values())))


def has_doubles(module: nn.Module) -> bool:
    """Whether a module computes in float64, which no runtime but torch's own does."""
    return any(parameter.dtype == torch.float64 for parameter in module.parameters())


def token_tensors(inputs: Mapping[str, Tensor]) -> set[str]:
    """Names of a batch's tensors (n, tokens, …), which are as long as its longest text; none of other samples."""
    lengths = {inputs[name].shape[1] for name in ("attention_mask", "input_ids") if name in inputs}
    return {name for name, tensor in inputs.items() if tensor.ndim > 1 and tensor.shape[1] in lengths}


def shapes_of(inputs: Inputs) -> dict[str, tuple[int, ...]]:
    """Shapes of a batch's samples, by name; of texts without their length."""
    tokens = set() if isinstance(inputs, Tensor) else token_tensors(inputs)
    return {name: tuple(tensor.shape[1 + (name in tokens) :]) for name, tensor in named(inputs).items()}


def first_of(inputs: Inputs, count: int) -> Inputs:
    """The first samples of a batch."""
    if isinstance(inputs, Tensor):
        return inputs[:count]
    return {name: tensor[:count] for name, tensor in inputs.items()}


def second_half_of(inputs: Inputs) -> Inputs:
    """The samples of a batch after its first half, which is rounded up; of one sample, that one."""
    first = (size_of(inputs) + 1) // 2 if size_of(inputs) > 1 else 0
    if isinstance(inputs, Tensor):
        return inputs[first:]
    return {name: tensor[first:] for name, tensor in inputs.items()}


def named(tensors: Inputs) -> dict[str, Tensor]:
    """Inputs or outputs by name; "" for a plain tensor."""
    return {"": tensors} if isinstance(tensors, Tensor) else dict(tensors)


def in_batches_of(size: int, forward: Forward) -> Forward:
    """A forward pass that was built for batches of one size, for batches of any: the last sample fills them up."""

    def any_size(inputs: Inputs) -> Outputs:
        assert isinstance(inputs, Tensor)
        parts = []
        for part in inputs.split(size):
            missing = part[-1:].expand(size - len(part), *part.shape[1:])
            outputs = named(forward(torch.cat([part, missing]) if len(missing) else part))
            parts.append({name: tensor[: len(part)] for name, tensor in outputs.items()})
        whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if len(parts) > 1 else parts[0]
        return whole[""] if list(whole) == [""] else whole

    return any_size
