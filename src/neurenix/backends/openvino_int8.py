"""OpenVINO in whole numbers of 8 bits, calibrated on the first half of the first real batch. The extra `int8`."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import has_fast_int8
from ..packages import require
from ._backend import BACKENDS, Backend, Forward, Inputs, size_of
from ._export import Flat
from .openvino import build_openvino, is_installed

_CALIBRATED = 32  # samples at most, and half of a batch: how well the others agree shows whether it is faithful


def _build(module: nn.Module, example: Inputs, precision: str) -> Forward:
    require("nncf", purpose="backend='openvino_int8'", install="'neurenix[int8]'")
    return build_openvino(module, example, precision, _quantised)


def _quantised(graph: Any, flat: Flat, example: Inputs) -> Any:
    """The graph with weights and activations in 8 bits, their ranges taken from the samples one by one."""
    import nncf

    tensors = flat.tensors(example)
    count = min(_CALIBRATED, (size_of(example) + 1) // 2)
    samples = [[tensor[place : place + 1].contiguous().numpy() for tensor in tensors] for place in range(count)]
    data = nncf.Dataset([some[0] if isinstance(example, Tensor) else some for some in samples])
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(graph, data, subset_size=count)


def _is_installed() -> bool:
    return is_installed() and importlib.util.find_spec("nncf") is not None


BACKENDS.add(
    "openvino_int8",
    Backend(
        build=_build,
        usable=lambda device, precision: has_fast_int8(torch.device(device)) and _is_installed(),
        convolutions={"fp32": 27.0, "bf16": 16.0},
        products={},  # one range for all tokens does not hold: 0.95 on some images of ViT-S
        build_seconds=9.0,
        rounds=True,
    ),
)
