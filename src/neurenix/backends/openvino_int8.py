"""OpenVINO with convolutions in whole numbers of 8 bits, calibrated on a few samples of the first real batch.

What enters a convolution has one range for all of it, from the largest numbers seen. Weights have a range for each
output and are rounded with their errors in view (`_rounding`): that, and not the ranges, is what networks with
convolutions of one channel each stand or fall by.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..devices import has_fast_int8
from ._backend import BACKENDS, Backend, CannotBuild, Forward, Inputs, size_of
from ._export import Flat
from ._rounding import round_for_mean, round_for_smooth_maps
from .openvino import build_openvino, is_installed, settings

_CALIBRATED = 8  # samples at most, and half of a batch: how well the others agree shows whether it is faithful
_PART = 4  # samples that are run at once to calibrate
_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_MOVED = ("Add", "BatchNormInference", "Multiply")
_BENT = ("Clamp", "Elu", "Gelu", "HSigmoid", "HSwish", "Relu", "Sigmoid", "Swish")
_SMALLEST = 1e-6  # of what never was anything but 0


def _build(module: nn.Module, example: Inputs, precision: str) -> Forward:
    return build_openvino(module, example, precision, _quantised)


@dataclass(frozen=True)
class _Seen:
    """Of what enters a convolution: the least and largest number, and each channel's mean (c,)."""

    least: float
    largest: float
    means: Tensor


def _quantised(graph: Any, flat: Flat, example: Inputs) -> Any:
    """The graph with what is convolved, and by what, in 8 bits."""
    layers = [operation for operation in graph.get_ordered_ops() if _is_rounded(operation)]
    if not layers:
        raise CannotBuild("none of its convolutions but the first has weights that stay as they are")
    read = [_source(layer) for layer in layers] + list(_sums(graph, layers))
    sources = {_name(source): source for source in read}
    seen = _seen(graph, sources, flat, example)
    for layer in layers:
        _round_weights(layer, seen[_name(_source(layer))].means)
    for name, source in sources.items():
        _round_inputs(source, seen[name])
    graph.validate_nodes_and_infer_types()
    return graph


def _is_rounded(layer: Any) -> bool:
    """Convolutions by weights that stay as they are, but for those that read the graph's inputs.

    Images are in 8 bits already, in steps that are not these, and the first layer sees few channels. So does each
    output of a layer right behind it that sees one channel: EfficientNet-Lite0 loses more by that than by all others.
    """
    if layer.get_type_name() not in _CONVOLUTIONS or _weights_of(layer) is None:
        return False
    source = _source(layer)
    if _sees_one_channel(layer):
        before = _layer_before(source, (*_MOVED, *_BENT))
        source = _source(before) if before.get_type_name() in _CONVOLUTIONS else source
    return source.get_node().get_type_name() != "Parameter"


def _sees_one_channel(layer: Any) -> bool:
    return layer.get_type_name() == "GroupConvolution" and layer.input_value(1).get_shape()[2] == 1


def _source(layer: Any) -> Any:
    """What a convolution reads, before margins are put around it: rounded there, they are part of the convolution."""
    source = layer.input_value(0)
    return source.get_node().input_value(0) if source.get_node().get_type_name() == "Pad" else source


def _sums(graph: Any, layers: Iterable[Any]) -> Iterator[Any]:
    """Both parts of a sum with what was convolved: in 8 bits it is computed together with that convolution."""
    names = {layer.get_name() for layer in layers}
    for operation in graph.get_ordered_ops():
        parts = operation.input_values() if operation.get_type_name() == "Add" else []
        computed = [part for part in parts if part.get_node().get_type_name() != "Constant"]
        alike = len({str(part.get_partial_shape()) for part in computed}) == 1
        if len(computed) == 2 and alike and any(_layer_before(part, _MOVED).get_name() in names for part in computed):
            yield from computed


def _layer_before(part: Any, passed: tuple[str, ...]) -> Any:
    """What gave a part, before operations of these types changed it number by number."""
    node = part.get_node()
    while node.get_type_name() in passed:
        node = node.input_value(0).get_node()
    return node


def _weights_of(layer: Any) -> np.ndarray | None:
    """(o, i, *size), or (groups, o, i, *size), float32; None where they are computed."""
    node = layer.input_value(1).get_node()
    while node.get_type_name() == "Reshape":
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant" or node.data.dtype != np.float32:
        return None
    return node.data.reshape(list(layer.input_value(1).get_shape()))


def _name(source: Any) -> tuple[str, int]:
    return source.get_node().get_name(), source.get_index()


def _seen(graph: Any, sources: Mapping[tuple[str, int], Any], flat: Flat, example: Inputs) -> dict[Any, _Seen]:
    """Of each source what it gives for the first samples, in fp32."""
    import openvino
    from openvino import opset13

    results = []
    for source in sources.values():
        places = opset13.constant(np.arange(2, len(source.get_partial_shape())))
        for summary in (opset13.reduce_min, opset13.reduce_max, opset13.reduce_mean):
            results.append(opset13.result(summary(source, places)))  # (n, c)
    watching = openvino.Model(results, graph.get_parameters())
    if isinstance(example, Tensor):
        watching.reshape(openvino.PartialShape([_PART, *example.shape[1:]]))
    run = openvino.Core().compile_model(watching, "CPU", settings("fp32", 1))
    count = min(_CALIBRATED, (size_of(example) + 1) // 2)
    given = []
    for start in range(0, count, _PART):
        # the last ones are run twice where they do not fill a part
        places = torch.arange(start, start + _PART).clamp(max=count - 1)
        answers = run([tensor[places].contiguous().numpy() for tensor in flat.tensors(example)])
        given.append([torch.tensor(answers[number]) for number in range(len(results))])
    rows = iter([torch.cat(parts) for parts in zip(*given, strict=True)])
    return {name: _Seen(float(next(rows).min()), float(next(rows).max()), next(rows).mean(0)) for name in sources}


def _round_weights(layer: Any, means: Tensor) -> None:
    """Put whole numbers in the place of a layer's weights. means: (c,) of the channels that they see."""
    from openvino import opset13

    weights = torch.tensor(_weights_of(layer))
    by_group = weights if layer.get_type_name() == "GroupConvolution" else weights.unsqueeze(0)
    groups, outputs, inputs, *size = by_group.shape
    if inputs == 1 and math.prod(size) > 1:
        rounded, scales = round_for_smooth_maps(by_group.reshape(-1, *size))
    else:
        taps = means.reshape(groups, 1, inputs, 1).expand(groups, outputs, inputs, math.prod(size))
        rounded, scales = round_for_mean(by_group.reshape(groups * outputs, -1), taps.reshape(groups * outputs, -1))
    whole = opset13.convert(opset13.constant(rounded.reshape(weights.shape).to(torch.int8).numpy()), "f32")
    each = scales.reshape(*weights.shape[: -1 - len(size)], *[1] * (1 + len(size)))
    layer.input(1).replace_source_output(opset13.multiply(whole, opset13.constant(each.numpy())).output(0))


def _round_inputs(source: Any, seen: _Seen) -> None:
    """Let all that read a source read it in 256 steps from the least to the largest number seen, with 0 among them."""
    from openvino import opset13

    if seen.least >= 0:
        least, largest = 0.0, max(seen.largest, _SMALLEST)
    else:
        far = max(-seen.least, seen.largest, _SMALLEST)
        least, largest = -far, far * 127 / 128
    readers = source.get_target_inputs()
    ends = [opset13.constant(np.float32(end)) for end in (least, largest)]
    steps = opset13.fake_quantize(source, *ends, *ends, 256)
    for reader in readers:
        reader.replace_source_output(steps.output(0))


BACKENDS.add(
    "openvino_int8",
    Backend(
        build=_build,
        usable=lambda device, precision: has_fast_int8(torch.device(device)) and is_installed(),
        convolutions={"fp32": 27.0, "bf16": 16.0},
        products={},  # one range for all tokens does not hold: 0.95 on some images of ViT-S
        build_seconds=3.0,
        rounds=True,
    ),
)
