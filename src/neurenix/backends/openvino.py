"""OpenVINO on the CPU: the whole graph at once, in bfloat16 where the processor multiplies it. The extra `fast`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import has_fast_bfloat16
from ..packages import require
from ._backend import (
    BACKENDS,
    Backend,
    CannotBuild,
    Forward,
    Inputs,
    Outputs,
    device_of,
    eager,
    first_of,
    has_doubles,
    named,
    size_of,
    token_tensors,
)
from ._export import TYPED, Flat, Run, export, forward_of, is_traceable, quiet, traced, watched

_HINTS = {"fp32": "f32", "bf16": "bf16"}


_NEAR = 0.05  # relative; a wrong length makes more of a difference than rounding to bfloat16
Change = Callable[[Any, Flat, Inputs], Any]
Read = Callable[[Flat, Inputs], Any]


def _build(module: nn.Module, example: Inputs, precision: str) -> Forward:
    return build_openvino(module, example, precision, lambda graph, flat, example: graph)


def build_openvino(
    module: nn.Module, example: Inputs, precision: str, change: Change, *, near: float = _NEAR
) -> Forward:
    """The module's forward pass by OpenVINO.

    change: (graph, module, example) -> the graph that is to be compiled. near: how far the answers for other texts may
    be from torch's, relative.
    """
    openvino: Any = require("openvino", purpose="backend='openvino'", install="'neurenix[fast]'")
    if device_of(example).type != "cpu" or precision not in _HINTS:
        raise CannotBuild(f"openvino runs on the CPU in fp32 or bf16, not on {device_of(example)} in {precision}")
    if has_doubles(module):
        raise CannotBuild("openvino computes in float32, and the weights are float64")
    run = eager(module, device_of(example), precision)
    few = first_of(example, TYPED)
    like, looks_at_values = watched(lambda: run(few))
    is_recordable = not looks_at_values or is_traceable(Flat(module, example), few)
    for read in (_recorded, _exported) if is_recordable else (_exported,):
        try:
            with quiet():
                forward = _compiled(openvino, read, Flat(module, example), example, precision, change, like)
        except CannotBuild:
            raise
        except Exception as error:  # an operation that it has no rule for
            reason = _reason(error)
            continue
        if isinstance(example, Tensor) or _holds(forward, module, example, precision, near):
            return forward
        reason = "fewer samples, or texts of other lengths, get other answers"
    raise CannotBuild(f"openvino cannot convert it ({reason})")


def _compiled(
    openvino: Any, read: Read, flat: Flat, example: Inputs, precision: str, change: Change, like: Outputs
) -> Forward:
    # images go in parts, so that each core works through parts of its own and none waits for the others in every layer
    cores = torch.get_num_threads() if isinstance(example, Tensor) else 1
    part = first_of(example, -(-size_of(example) // (2 * cores))) if isinstance(example, Tensor) else example
    decoder = read(flat, part)

    def compile_model() -> Any:
        frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
        graph = change(frontend.convert(frontend.load(decoder)), flat, example)
        if isinstance(part, Tensor):
            graph.reshape(openvino.PartialShape(list(part.shape)))
            if any(output.get_partial_shape()[0] != len(part) for output in graph.outputs):
                raise ValueError("it was recorded for another number of images")
        return openvino.Core().compile_model(graph, "CPU", settings(precision, cores))

    size = size_of(part) if isinstance(part, Tensor) else None
    return forward_of(flat, _runner(_in_a_thread(compile_model), cores, size), like)


def _in_a_thread(work: Callable[[], Any]) -> Any:
    """The result of work done in a thread that ends with it.

    OpenVINO gives a thread in which its plugin is loaded a stack for signals, and frees that stack where the plugin is
    let go of, in another thread too: the next signal, that of a child's end say, would then be the process's end.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def _recorded(flat: Flat, example: Inputs) -> Any:
    """The calls that torch.jit records, in a fifth of the time of an export.

    All there is for images of one size, where what is called depends on no values; of few, since how many there are is
    set afterwards. For texts the sizes have to have been left open, which is tried afterwards.
    """
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    few = first_of(example, TYPED) if isinstance(example, Tensor) else example
    return TorchScriptPythonDecoder(traced(flat, few), example_input=tuple(flat.tensors(few)))


def _exported(flat: Flat, example: Inputs) -> Any:
    """Not by openvino.convert_model, which tries to tell its makers of every call."""
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    return TorchFXPythonDecoder.from_exported_program(export(flat, example))


def _holds(forward: Forward, module: nn.Module, samples: Mapping[str, Tensor], precision: str, near: float) -> bool:
    """Whether fewer samples than it was built with, and shorter texts, get the right answers."""
    tokens = token_tensors(samples)
    few = {
        name: tensor[:TYPED, : max(1, tensor.shape[1] - 3)] if name in tokens else tensor[:TYPED]
        for name, tensor in samples.items()
    }
    try:
        expected = named(eager(module, device_of(samples), precision)(few))
        found = named(forward(few))
    except (RuntimeError, IndexError):  # a size that was recorded as a number, or that the module has to be given
        return False
    return all(_is_near(found[name], rows, near) for name, rows in expected.items())


def _is_near(found: Tensor, expected: Tensor, near: float) -> bool:
    if found.shape != expected.shape or not expected.is_floating_point():
        return torch.equal(found, expected)
    return bool((found.float() - expected.float()).norm() <= near * expected.float().norm())


def settings(precision: str, streams: int) -> dict[str, Any]:
    """What a model is compiled with: how many requests run side by side on all of the threads, and in which numbers."""
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision if has_fast_bfloat16(torch.device("cpu")) else "fp32"],
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


def is_installed() -> bool:
    """Whether openvino can be imported."""
    return importlib.util.find_spec("openvino") is not None


BACKENDS.add(
    "openvino",
    Backend(
        build=_build,
        usable=lambda device, precision: device == "cpu" and precision in _HINTS and is_installed(),
        convolutions={"fp32": 7.0, "bf16": 10.0},
        products={"fp32": 1.2, "bf16": 7.0},
        build_seconds=2.0,
    ),
)
