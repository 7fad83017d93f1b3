"""OpenVINO on the CPU: the whole graph at once, in bfloat16 where the processor multiplies it. The extra `fast`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..packages import require
from ._backend import BACKENDS, Backend, CannotBuild, Forward, Inputs, device_of, eager, first_of, size_of
from ._export import TYPED, Flat, Run, export, forward_of, is_traceable, quiet, traced

_HINTS = {"fp32": "f32", "bf16": "bf16"}


Change = Callable[[Any, Flat, Inputs], Any]


def _build(module: nn.Module, example: Inputs, precision: str) -> Forward:
    return build_openvino(module, example, precision, lambda graph, flat, example: graph)


def build_openvino(module: nn.Module, example: Inputs, precision: str, change: Change) -> Forward:
    """The module's forward pass by OpenVINO. change: (graph, module, example) -> the graph that is to be compiled."""
    openvino = require("openvino", purpose="backend='openvino'", install="'neurenix[fast]'")
    if device_of(example).type != "cpu" or precision not in _HINTS:
        raise CannotBuild(f"openvino runs on the CPU in fp32 or bf16, not on {device_of(example)} in {precision}")
    flat = Flat(module, example)
    like = eager(module, device_of(example), precision)(first_of(example, TYPED))
    # images go in parts, so that each core works through parts of its own and none waits for the others in every layer
    cores = torch.get_num_threads() if isinstance(example, Tensor) else 1
    part = first_of(example, -(-size_of(example) // (2 * cores))) if isinstance(example, Tensor) else example
    try:
        with quiet():
            graph = change(_graph(flat, part), flat, example)
            if isinstance(part, Tensor):
                graph.reshape(openvino.PartialShape(list(part.shape)))
            compiled = openvino.Core().compile_model(graph, "CPU", _settings(precision, cores))
    except CannotBuild:
        raise
    except Exception as error:  # an operation that it has no rule for
        raise CannotBuild(f"openvino cannot convert it ({_reason(error)})") from error
    size = size_of(part) if isinstance(part, Tensor) else None
    return forward_of(flat, _runner(compiled, cores, size), like)


def _graph(flat: Flat, example: Inputs) -> Any:
    """The module as OpenVINO's own graph.

    Images have one size, so the calls that torch.jit records are all there is, and recording takes a fifth of the
    time of an export; texts need the sizes left open that an export leaves. Not by openvino.convert_model, which tries
    to tell its makers of every call.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    if isinstance(example, Tensor) and is_traceable(flat, example):
        decoder = TorchScriptPythonDecoder(traced(flat, example), example_input=(example,))
    else:
        decoder = TorchFXPythonDecoder.from_exported_program(export(flat, example))
    frontend = FrontEndManager().load_by_framework("pytorch")
    return frontend.convert(frontend.load(decoder))


def _settings(precision: str, streams: int) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }


def _runner(compiled: Any, streams: int, part: int | None) -> Run:
    """Runs parts of `part` samples, as many at a time as there are streams; None for any batch at once."""
    requests = [compiled.create_infer_request() for _ in range(streams)]
    places = range(len(compiled.outputs))

    def finish(number: int) -> list[Tensor]:
        request = requests[number % streams]
        request.wait()
        # copied, because the next call writes into the same memory
        return [torch.tensor(request.get_output_tensor(place).data) for place in places]

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        parts = [tensors] if part is None else [[some] for some in _filled(tensors[0], part).split(part)]
        collected: list[list[Tensor]] = []
        for number, some in enumerate(parts):
            if number >= streams:
                collected.append(finish(number - streams))
            requests[number % streams].start_async([tensor.contiguous().numpy() for tensor in some], share_inputs=True)
        collected += [finish(number) for number in range(len(collected), len(parts))]
        return [torch.cat([rows[place] for rows in collected])[: len(tensors[0])] for place in places]

    return run


def _filled(images: Tensor, part: int) -> Tensor:
    """The images with the last one repeated until they make whole parts."""
    missing = -len(images) % part
    return torch.cat([images, images[-1:].expand(missing, *images.shape[1:])]) if missing else images


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.startswith(("-- ", "Summary")) or "rule" in line]
    return (" ".join(lines) or " ".join(str(error).split()) or type(error).__name__)[:200]


def _is_installed() -> bool:
    return importlib.util.find_spec("openvino") is not None


BACKENDS.add(
    "openvino",
    Backend(
        build=_build,
        usable=lambda device, precision: device == "cpu" and precision in _HINTS and _is_installed(),
        expected={"fp32": 7.0, "bf16": 10.0},
        build_seconds=3.0,
    ),
)
