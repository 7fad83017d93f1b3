"""torch.compile with the weights frozen into the generated code. Building takes half a minute."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ._backend import BACKENDS, Backend, CannotBuild, Forward, Inputs, Outputs, device_of, eager, in_batches_of, size_of
from .channels_last import by_pixels


def _build(module: nn.Module, example: Inputs, precision: str) -> Forward:
    own = copy.deepcopy(module)  # freezing changes the module's parameters
    for parameter in own.parameters():
        parameter.requires_grad_(False)
    device = device_of(example)
    options: dict[str, Any] = {"freezing": True} if device.type == "cpu" else {}
    code: Any = torch.compile(own, options=options, dynamic=False if isinstance(example, Tensor) else None)
    forward = eager(code, device, precision)

    def compiled(inputs: Inputs) -> Outputs:
        return forward(by_pixels(inputs))

    try:
        with warnings.catch_warnings(action="ignore"):  # its own remarks about the code it is given
            compiled(example)
    except Exception as error:  # a compiler that is missing, a forward it cannot read
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CannotBuild(f"torch.compile cannot build it ({reason[0][:200]})") from error
    return in_batches_of(size_of(example), compiled) if isinstance(example, Tensor) else compiled


BACKENDS.add(
    "compile",
    Backend(
        build=_build,
        usable=lambda device, precision: True,
        convolutions={"fp32": 2.9, "bf16": 5.4, "fp16": 5.4},
        products={"fp32": 1.2, "bf16": 5.4, "fp16": 5.4},
        build_seconds=30.0,
    ),
)
