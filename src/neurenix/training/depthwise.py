"""The gradients of depthwise convolutions on the CPU, where oneDNN has no fast kernel for them.

For those of weights it has one only where a convolution's kernel is three columns wide at most, and maps are more than
margins. With five columns they take ten to twenty times as long as the convolution itself, a third of a step of
EfficientNet on small images (docs/log.md). So wider kernels are taken three columns at a time, and margins are put
around the maps beforehand: two thirds to a seventeenth of the time.

For those of maps it has none in bf16 where a convolution goes in steps of more than one: most of a step of EfficientNet
(docs/log.md). They are taken in fp32, which is 6 to 190 times as fast. benchmarks/depthwise_gradients.py shows both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

_COLUMNS = 3  # of a kernel, that oneDNN is fast with
_SMALL = 2  # rows of a map that is mostly margins
_STRIDED = 7  # columns of answers up to which three at a time are faster in steps of more than one
_Pair = tuple[int, int]


def depthwise_calls(model: nn.Module) -> Mapping[Any, Callable[..., Tensor]]:
    """What is called in the place of torch's convolutions while the model trains; nothing if none of it sees one map.

    Both as layers call them and as the graph of what is trained does.
    """
    layers = (layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    if not any(layer.groups == layer.in_channels == layer.out_channels > 1 for layer in layers):
        return {}
    return {functional.conv2d: _conv2d, torch.ops.aten.conv2d.default: _conv2d}


def weight_gradient(maps: Tensor, gradient: Tensor, size: _Pair, stride: _Pair, padding: _Pair) -> Tensor:
    """Of a depthwise convolution: G_c,a,b = Σ_n,y,x g_n,c,y,x m_n,c,(y s + a - p),(x s + b - p), m being 0 outside.

    maps: (n, c, h, w)   gradient: (n, c, rows, columns), of the answers   -> (c, 1, *size)
    """
    (height, width), (rows, columns) = maps.shape[2:], gradient.shape[2:]
    below = (rows - 1) * stride[0] + size[0] - height - padding[0]
    if -below >= height:  # only ever margins are seen
        return maps.new_zeros(maps.shape[1], 1, *size)
    parts = []
    for first in range(0, size[1], _COLUMNS):
        taken = min(_COLUMNS, size[1] - first)
        left = padding[1] - first
        right = (columns - 1) * stride[1] + taken - width - left
        if max(-left, -right) >= width:
            parts.append(maps.new_zeros(maps.shape[1], 1, size[0], taken))
            continue
        seen = functional.pad(maps, (left, right, padding[0], below))  # below 0: cut off
        parts.append(_by_torch(seen, gradient, (size[0], taken), stride, (0, 0)))
    return torch.cat(parts, 3)


def maps_gradient(maps: Tensor, weights: Tensor, gradient: Tensor, stride: _Pair, padding: _Pair) -> Tensor:
    """Of a depthwise convolution: G_n,c,i,j = Σ_a,b g_n,c,y,x w_c,a,b where y s + a - p = i and x s + b - p = j.

    maps: (n, c, h, w), of which shape and layout are asked for alone   weights: (c, 1, *size)
    gradient: (n, c, rows, columns), of the answers   -> (n, c, h, w)
    """
    kind = torch.float32 if _returns_slowly(gradient.dtype, stride) else gradient.dtype
    given = (gradient.to(kind), torch.empty_like(maps, dtype=kind), weights.to(kind))
    found: tuple[Tensor, None, None] = torch.ops.aten.convolution_backward(
        *given, None, stride, padding, (1, 1), False, (0, 0), maps.shape[1], (True, False, False)
    )
    return found[0].to(gradient.dtype)


def _by_torch(maps: Tensor, gradient: Tensor, size: _Pair, stride: _Pair, padding: _Pair) -> Tensor:
    channels = maps.shape[1]
    weights = maps.new_empty(channels, 1, *size)  # their number is asked for, not what they are
    found: tuple[None, Tensor, None] = torch.ops.aten.convolution_backward(
        gradient, maps, weights, None, stride, padding, (1, 1), False, (0, 0), channels, (False, True, False)
    )
    return found[1]


@final
class _Depthwise(torch.autograd.Function):
    """torch's convolution; its gradients by maps_gradient and weight_gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(maps: Tensor, weights: Tensor, bias: Tensor | None, stride: _Pair, padding: _Pair) -> Tensor:
        return functional.conv2d(maps, weights, bias, stride, padding, 1, maps.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        maps, weights, _, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(maps, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (maps, weights), (gradient,), wanted = ctx.saved_tensors, gradients, ctx.needs_input_grad
        of_maps = of_weights = of_bias = None
        if wanted[0]:
            of_maps = maps_gradient(maps, weights, gradient, ctx.stride, ctx.padding)
        if wanted[1]:
            size = (weights.shape[2], weights.shape[3])
            compute = weight_gradient if _learns_slowly(maps, size, maps.dtype, ctx.stride, ctx.padding) else _by_torch
            of_weights = compute(maps, gradient, size, ctx.stride, ctx.padding)
        if wanted[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_maps, of_weights, of_bias, None, None


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    if not isinstance(padding, str) and _pair(dilation) == (1, 1) and _is_for_us(input, weight, groups):
        steps, margins = _pair(stride), _pair(padding)
        kind, size = _precision(input), (weight.shape[2], weight.shape[3])
        returns = input.requires_grad and _returns_slowly(kind, steps)
        if returns or (weight.requires_grad and _learns_slowly(input, size, kind, steps, margins)):
            given = (None if part is None else part.to(kind) for part in (input, weight, bias))
            result: Tensor = _Depthwise.apply(*given, steps, margins)
            return result
    return functional.conv2d(input, weight, bias, stride, padding, dilation, groups)


def _pair(value: int | Sequence[int]) -> _Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _is_for_us(maps: Tensor, weights: Tensor, groups: int) -> bool:
    """A depthwise convolution in one precision, with derivatives that go backwards."""
    is_depthwise = maps.ndim == 4 and maps.shape[1] == weights.shape[0] == groups > 1
    is_one = maps.dtype == weights.dtype or torch.is_autocast_enabled("cpu")
    return is_depthwise and is_one and forward_ad._current_level < 0


def _precision(maps: Tensor) -> torch.dtype:
    """That in which torch would convolve."""
    is_cast = torch.is_autocast_enabled("cpu") and maps.dtype != torch.float64
    return torch.get_autocast_dtype("cpu") if is_cast else maps.dtype


def _returns_slowly(kind: torch.dtype, stride: _Pair) -> bool:
    """Whether oneDNN has no fast kernel for maps' gradients."""
    return kind == torch.bfloat16 and stride != (1, 1)


def _learns_slowly(maps: Tensor, size: _Pair, kind: torch.dtype, stride: _Pair, padding: _Pair) -> bool:
    """Whether oneDNN has no fast kernel for weights' gradients, and weight_gradient is faster."""
    if kind not in (torch.float32, torch.bfloat16):
        return False
    if maps.shape[2] <= _SMALL and padding[0] > 0:
        return True
    columns = (maps.shape[3] + 2 * padding[1] - size[1]) // stride[1] + 1
    return size[1] > _COLUMNS and (kind == torch.bfloat16 or stride == (1, 1) or columns <= _STRIDED)
