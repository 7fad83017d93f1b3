"""Eager torch with channels-last images on a GPU; on the CPU eager torch has them so anyway."""

from __future__ import annotations

from torch import nn

from ._backend import BACKENDS, Backend, Forward, Inputs, Outputs, device_of, eager
from .layout import by_pixels


def _build(module: nn.Module, example: Inputs, precision: str) -> Forward:
    forward = eager(module, device_of(example), precision)

    def in_channels_last(inputs: Inputs) -> Outputs:
        return forward(by_pixels(inputs))

    return in_channels_last


BACKENDS.add(
    "channels_last",
    Backend(
        build=_build,
        usable=lambda device, precision: device != "cpu",
        convolutions={"fp32": 1.6, "bf16": 3.5, "fp16": 3.5},
        products={},
        build_seconds=0.0,
    ),
)
