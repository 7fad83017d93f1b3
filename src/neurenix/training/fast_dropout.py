"""Dropout on the CPU in a quarter of torch's time, while a training step runs.

torch draws a random number for each element there, one after another: a sixth of a step of MiniLM's last two layers,
whose attention is all that leaves out (docs/log.md). Sixteen random bits are enough to leave out a share to within
1 / 131,072, and one draw has four times as many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

_LANES, _LANE = 4, torch.int16  # in 64 bits
_VALUES, _LOWEST = 2**16, -(2**15)


def dropout_calls(model: nn.Module) -> Mapping[Any, Callable[..., Tensor]]:
    """What is called in the place of torch's dropout, and attention with dropout, while the model trains.

    Nothing where the model leaves nothing out, nor for models with torch's MultiheadAttention, whose inner calls are
    not seen from outside: a graph of such a model would draw other numbers than the model does.
    """
    layers = list(model.modules())
    is_seen = not any(isinstance(layer, nn.MultiheadAttention) and layer.dropout > 0 for layer in layers)
    return _FASTER if is_seen and any(_leaves_out(layer) for layer in layers) else {}


def _leaves_out(layer: nn.Module) -> bool:
    """Whether a layer may drop; attention often keeps the share as a number, or in a layer that is never called."""
    if isinstance(layer, nn.Dropout):
        return layer.p > 0
    return any("dropout" in name and isinstance(value, float) and value > 0 for name, value in vars(layer).items())


def kept_elements(shape: torch.Size, share: float) -> tuple[Tensor, float]:
    """(which elements stay, what they are multiplied with, so that the expectation stays), by torch's generator.

    share: of elements that are left out, 0 <= share < 1. Srivastava et al., JMLR 2014, section 4, scaled in training.
    """
    count, left_out = math.prod(shape), min(round(share * _VALUES), _VALUES - 1)
    bits = torch.empty(-(-count // _LANES), dtype=torch.int64).random_(-(2**63), None)
    kept = bits.view(_LANE)[:count].view(shape) >= _LOWEST + left_out
    return kept, _VALUES / (_VALUES - left_out)


@final
class _Drop(torch.autograd.Function):
    """x · kept · factor; one byte of each element's mask is kept for the way back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, kept: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.factor = factor
        return values * _factors(kept, factor, values.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (kept,), (gradient,) = ctx.saved_tensors, gradients
        return gradient * _factors(kept, ctx.factor, gradient.dtype), None, None


def _factors(kept: Tensor, factor: float, dtype: torch.dtype) -> Tensor:
    found = kept.to(dtype)
    return found if factor == 1 else found.mul_(factor)


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not _is_for_us(input, p) or not training:
        return functional.dropout(input, p, training, inplace)
    if inplace:  # by the same numbers: a graph calls its twin that is not
        kept, factor = kept_elements(input.shape, p)
        return input.mul_(_factors(kept, factor, input.dtype))
    result: Tensor = _Drop.apply(input, *kept_elements(input.shape, p))
    return result


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(q kᵀ / √d + mask) v, some weights left out. Vaswani et al., NeurIPS 2017, equation 1.

    query: (…, m, d)   key, value: (…, n, d)   attn_mask: (…, m, n), true for those that are looked at, or to be added
    Every kind of mask is for us, so that the same numbers are drawn however a graph has written it down.
    """
    if not _is_for_us(query, dropout_p):
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if enable_gqa:
        key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    unseen = None
    if attn_mask is not None:
        added, unseen = _added(attn_mask, scores.dtype)
        scores += added
    weights = scores.softmax(-1, dtype=torch.float32)
    if unseen is not None and bool(unseen.any()):
        weights = weights.masked_fill(unseen, 0.0)  # who may look at nothing sees nothing
    kept, factor = kept_elements(weights.shape, dropout_p)
    result: Tensor = _Drop.apply(weights, kept, 1.0).to(value.dtype) @ (value * factor)
    return result


def _added(mask: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(what is added to scores, who may look at nothing: (…, m, 1)); finite, as an infinite row has no gradient."""
    least = torch.finfo(dtype).min / 2
    if mask.dtype != torch.bool:
        return mask.to(dtype).clamp(min=least), (mask == -torch.inf).all(-1, keepdim=True)
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, least), ~mask.any(-1, keepdim=True)


def _is_for_us(values: Tensor, share: float) -> bool:
    """Dropout with derivatives that go backwards; torch.func, and vmap's rules for randomness, are torch's own."""
    is_fast = values.device.type == "cpu" and values.dtype in (torch.float32, torch.bfloat16)
    is_plain = forward_ad._current_level < 0 and not torch._C._are_functorch_transforms_active()
    return is_fast and is_plain and 0 < share < 1


_FASTER: Mapping[Any, Callable[..., Tensor]] = {  # as layers call them, and as the graph of what is trained does
    functional.dropout: _dropout,
    torch.ops.aten.dropout.default: _dropout,
    torch.ops.aten.dropout_.default: partial(_dropout, inplace=True),
    functional.scaled_dot_product_attention: _attention,
    torch.ops.aten.scaled_dot_product_attention.default: _attention,
}
