"""OpenVINO on the CPU: the whole graph at once, in bfloat16 where the processor multiplies it. The extra `fast`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..packages import require
from ._backend import BACKENDS, Backend, CannotBuild, Forward, Inputs, device_of, eager
from ._export import Flat, export, forward_of, quiet

_HINTS = {"fp32": "f32", "bf16": "bf16"}


def _build(module: nn.Module, example: Inputs, precision: str) -> Forward:
    openvino = require("openvino", purpose="backend='openvino'", install="'neurenix[fast]'")
    if device_of(example).type != "cpu" or precision not in _HINTS:
        raise CannotBuild(f"openvino runs on the CPU in fp32 or bf16, not on {device_of(example)} in {precision}")
    flat = Flat(module, example)
    like = eager(module, device_of(example), precision)(example)
    program = export(flat, example)
    try:
        with quiet():
            graph = openvino.convert_model(program)
            compiled = openvino.Core().compile_model(graph, "CPU", _settings(precision))
    except Exception as error:  # an operation that it has no rule for
        raise CannotBuild(f"openvino cannot convert it ({_reason(error)})") from error
    return forward_of(flat, example, _runner(compiled), like)


def _settings(precision: str) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }


def _runner(compiled: Any) -> Any:
    request = compiled.create_infer_request()

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        request.infer([tensor.contiguous().numpy() for tensor in tensors], share_inputs=True)
        # copied, because the next call writes into the same memory
        return [torch.tensor(request.get_output_tensor(place).data) for place in range(len(compiled.outputs))]

    return run


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.startswith(("-- ", "Summary")) or "rule" in line]
    return (" ".join(lines) or str(error).strip() or type(error).__name__)[:200]


def _is_installed() -> bool:
    return importlib.util.find_spec("openvino") is not None


BACKENDS.add(
    "openvino",
    Backend(
        build=_build,
        usable=lambda device, precision: device == "cpu" and precision in _HINTS and _is_installed(),
        expected=10.0,
        build_seconds=3.0,
    ),
)
