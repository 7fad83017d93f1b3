"""The gradient of depthwise convolutions' weights on the CPU in a half to a fifth of torch's time.

oneDNN has a fast kernel for it only where a convolution's kernel is three columns wide at most, and maps are more than
margins. With five columns it takes ten to twenty times as long as the convolution itself, a third of a step of
EfficientNet on small images (docs/log.md). So wider kernels are taken three columns at a time, and margins are put
around the maps beforehand. benchmarks/depthwise_gradients.py shows both.
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
        parts.append(_by_torch(seen, gradient, (size[0], taken), stride))
    return torch.cat(parts, 3)


def _by_torch(maps: Tensor, gradient: Tensor, size: _Pair, stride: _Pair) -> Tensor:
    channels = maps.shape[1]
    weights = maps.new_empty(channels, 1, *size)  # their number is asked for, not what they are
    found: tuple[None, Tensor, None] = torch.ops.aten.convolution_backward(
        gradient, maps, weights, None, stride, (0, 0), (1, 1), False, (0, 0), channels, (False, True, False)
    )
    return found[1]


@final
class _Depthwise(torch.autograd.Function):
    """torch's convolution; its weights' gradient by weight_gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(maps: Tensor, weights: Tensor, bias: Tensor | None, stride: _Pair, padding: _Pair) -> Tensor:
        return functional.conv2d(maps, weights, bias, stride, padding, 1, maps.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        maps, weights, bias, ctx.stride, ctx.padding = inputs
        ctx.bias = None if bias is None else bias.shape
        ctx.save_for_backward(maps, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (maps, weights), (gradient,), wanted = ctx.saved_tensors, gradients, ctx.needs_input_grad
        others = (wanted[0], False, wanted[2])
        of_maps, _, of_bias = torch.ops.aten.convolution_backward(
            gradient, maps, weights, ctx.bias, ctx.stride, ctx.padding, (1, 1), False, (0, 0), maps.shape[1], others
        )
        of_weights = None
        if wanted[1]:
            of_weights = weight_gradient(maps, gradient, tuple(weights.shape[2:]), ctx.stride, ctx.padding)
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
        if _is_slow(input, weight, steps, margins):
            result: Tensor = _Depthwise.apply(input, weight, bias, steps, margins)
            return result
    return functional.conv2d(input, weight, bias, stride, padding, dilation, groups)


def _pair(value: int | Sequence[int]) -> _Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _is_for_us(maps: Tensor, weights: Tensor, groups: int) -> bool:
    """A depthwise convolution in fp32 that learns, with derivatives that go backwards."""
    is_depthwise = maps.ndim == 4 and maps.shape[1] == weights.shape[0] == groups > 1
    is_fp32 = maps.dtype == weights.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return is_depthwise and is_fp32 and weights.requires_grad and forward_ad._current_level < 0


def _is_slow(maps: Tensor, weights: Tensor, stride: _Pair, padding: _Pair) -> bool:
    """Whether oneDNN has no fast kernel for it and this way is faster."""
    if maps.shape[2] <= _SMALL and padding[0] > 0:
        return True
    columns = (maps.shape[3] + 2 * padding[1] - weights.shape[3]) // stride[1] + 1
    return weights.shape[3] > _COLUMNS and (stride == (1, 1) or columns <= _STRIDED)
