"""OpenVINO in whole numbers of 8 bits, calibrated on the first real batch. The extra `int8`."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from typing import Any

from torch import Tensor, nn

from ..packages import require
from ._backend import BACKENDS, Backend, CannotBuild, Forward, Inputs, size_of
from ._export import Flat
from .openvino import build_openvino

_CALIBRATED = 32  # samples at most


def _build(module: nn.Module, example: Inputs, precision: str) -> Forward:
    if precision != "bf16":
        raise CannotBuild(f"8 bits are fewer digits than precision={precision!r} asks for")
    require("nncf", purpose="backend='openvino_int8'", install="'neurenix[int8]'")
    return build_openvino(module, example, precision, _quantised)


def _quantised(graph: Any, flat: Flat, example: Inputs) -> Any:
    """The graph with weights and activations in 8 bits, their ranges taken from the samples one by one."""
    import nncf

    tensors = flat.tensors(example)
    count = min(_CALIBRATED, size_of(example))
    samples = [[tensor[place : place + 1].contiguous().numpy() for tensor in tensors] for place in range(count)]
    data = nncf.Dataset([some[0] if isinstance(example, Tensor) else some for some in samples])
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(graph, data, subset_size=count)


def _is_installed() -> bool:
    return all(importlib.util.find_spec(package) for package in ("nncf", "openvino"))


BACKENDS.add(
    "openvino_int8",
    Backend(
        build=_build,
        usable=lambda device, precision: device == "cpu" and precision == "bf16" and _is_installed(),
        convolutions={"bf16": 16.0},
        products={"bf16": 7.0},
        build_seconds=25.0,
    ),
)
