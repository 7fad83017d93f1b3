"""OpenVINO with products of matrices in 8 bits, whose ranges are those of the moment. The extra `fast`.

Weights are rounded once, with a range for each output; what they are multiplied with is rounded as it comes, each 128
numbers of a token with a range of their own. So nothing is calibrated, texts may have any length, and one token with
large numbers does not cost the others their digits, which is what fails where a layer has one range for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from ..devices import has_fast_int8
from ._backend import BACKENDS, Backend, CannotBuild, Forward, Inputs
from ._export import Flat
from ._rounding import round_rows
from .openvino import build_openvino, is_installed

_GROUP = 128  # numbers with one range: on a Xeon with VNNI faster than 32, 64 and 384, and nearer to fp32 than 384
_NEAR = 0.14  # relative, a cosine of 0.99: how far rounding may move an answer


def _build(module: nn.Module, example: Inputs, precision: str) -> Forward:
    return build_openvino(module, example, precision, _rounded, near=_NEAR)


def _rounded(graph: Any, flat: Flat, example: Inputs) -> Any:
    """The graph with weights in 8 bits, and told to round what they are multiplied with."""
    from openvino import opset13

    found = list(_products_with_weights(graph))
    if not found:
        raise CannotBuild("it multiplies nothing by weights that are matrices")
    for product, place, axis in found:
        rounded, scales = round_rows(torch.tensor(product.input_value(place).get_node().data), axis)
        whole = opset13.convert(opset13.constant(rounded.to(torch.int8).numpy()), "f32")
        weight = opset13.multiply(whole, opset13.constant(scales.numpy()))
        product.input(place).replace_source_output(weight.output(0))
    graph.set_rt_info(_GROUP, ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
    return graph


def _products_with_weights(graph: Any) -> Iterator[tuple[Any, int, int]]:
    """(product, which input is the weight, the weight's axis that is summed over) of every one in the graph."""
    for operation in graph.get_ordered_ops():
        if operation.get_type_name() == "MatMul":
            weight = operation.input_value(1).get_node()
            if weight.get_type_name() == "Constant" and weight.data.ndim == 2 and weight.data.dtype == np.float32:
                yield operation, 1, 1 if operation.get_attributes()["transpose_b"] else 0


BACKENDS.add(
    "openvino_int8_products",
    Backend(
        build=_build,
        usable=lambda device, precision: has_fast_int8(torch.device(device)) and is_installed(),
        convolutions={},  # it leaves those as they are
        products={"fp32": 2.5},
        build_seconds=3.0,
        rounds=True,
    ),
)
