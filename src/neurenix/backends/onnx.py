"""ONNX Runtime on the CPU in fp32: for machines without bfloat16, or without OpenVINO. The extra `onnx`."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..packages import require
from ._backend import (
    BACKENDS,
    Backend,
    CannotBuild,
    Forward,
    Inputs,
    device_of,
    eager,
    first_of,
    has_doubles,
    in_batches_of,
    size_of,
)
from ._export import TYPED, Flat, export, forward_of, quiet


def _build(module: nn.Module, example: Inputs, precision: str) -> Forward:
    for package in ("onnxscript", "onnxruntime"):
        require(package, purpose="backend='onnx'", install="'neurenix[onnx]'")
    if device_of(example).type != "cpu":
        raise CannotBuild(f"onnx runs on the CPU, not on {device_of(example)}")
    if has_doubles(module):
        raise CannotBuild("onnx computes in float32, and the weights are float64")
    flat = Flat(module, example)
    like = eager(module, device_of(example), precision)(first_of(example, TYPED))
    program = export(flat, example)
    try:
        with quiet():
            written = io.BytesIO()
            converted: Any = torch.onnx.export(program, dynamo=True, verbose=False, optimize=True)
            converted.save(written)
            session = _session(written.getvalue())
    except Exception as error:  # an operation that it has no rule for, a model above 2 GiB
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CannotBuild(f"onnx cannot convert it ({reason[0][:200]})") from error
    forward = forward_of(flat, _runner(session), like)
    return in_batches_of(size_of(example), forward) if isinstance(example, Tensor) else forward


def _session(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _runner(session: Any) -> Any:
    names = [place.name for place in session.get_inputs()]

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        given = {name: tensor.contiguous().numpy() for name, tensor in zip(names, tensors, strict=True)}
        return [torch.from_numpy(result) for result in session.run(None, given)]

    return run


def _is_needed() -> bool:
    """Where there is OpenVINO, it is as fast or nearly so, and it builds in a fraction of the time."""
    installed = all(importlib.util.find_spec(package) for package in ("onnxscript", "onnxruntime"))
    return installed and importlib.util.find_spec("openvino") is None


BACKENDS.add(
    "onnx",
    Backend(
        build=_build,
        usable=lambda device, precision: device == "cpu" and _is_needed(),
        convolutions={"fp32": 5.0},
        products={"fp32": 1.2},
        build_seconds=8.0,
    ),
)
