"""Eager torch on a copy of the weights in bfloat16: nothing is cast from layer to layer, as autocast does."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ._backend import BACKENDS, Backend, CannotBuild, Forward, Inputs, Outputs, device_of, eager, first_of, named
from .channels_last import by_pixels


def _build(module: nn.Module, example: Inputs, precision: str) -> Forward:
    if precision != "bf16":
        raise CannotBuild(f"bfloat16 weights have fewer digits than precision={precision!r} asks for")
    types = {name: tensor.dtype for name, tensor in named(_first(module, example, precision)).items()}
    halved = copy.deepcopy(module).to(torch.bfloat16)
    for part in halved.modules():
        for tensor in part.parameters(recurse=False):
            if tensor.ndim == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(inputs: Inputs) -> Outputs:
        outputs: Outputs = halved(_cast(by_pixels(inputs)))
        if isinstance(outputs, Tensor):
            return outputs.to(types[""])
        return {name: tensor.to(types[name]) for name, tensor in outputs.items()}

    return forward


def _first(module: nn.Module, example: Inputs, precision: str) -> Outputs:
    return eager(module, device_of(example), precision)(first_of(example, 2))


def _cast(inputs: Inputs) -> Inputs:
    if isinstance(inputs, Tensor):
        return inputs.to(torch.bfloat16) if inputs.is_floating_point() else inputs
    return {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()
    }


BACKENDS.add(
    "bfloat16",
    Backend(
        build=_build,
        usable=lambda device, precision: precision == "bf16",
        convolutions={"bf16": 4.4},
        products={"bf16": 4.4},
        build_seconds=0.3,
        any_shape=True,
    ),
)
