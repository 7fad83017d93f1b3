"""Whole numbers in the place of weights: to the nearest, and so that the errors of one output cancel each other."""

from __future__ import annotations

import torch
from torch import Tensor

_LARGEST = 127
_SMOOTH = 0.9  # correlation of neighbours in a map
_SCALES = torch.linspace(0.9, 1.0, 20)  # shares of the largest weight that become 127; what is above is cut
_MOST_CHANGED = 64  # weights of one output that are rounded the other way


def round_rows(weights: Tensor, axis: int = 1) -> tuple[Tensor, Tensor]:
    """To the nearest: whole numbers q = round(w / s), and scales s = max |w| / 127 over `axis`, so that w is about q s.

    weights: (a, b) float32 -> (a, b) and, for axis 1, (a, 1). Jacob et al., CVPR 2018, section 3, with zero at zero.
    """
    scales = _row_scales(weights, axis)
    return (weights / scales).round(), scales


def round_for_mean(weights: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Rounded weights q, whole numbers in [-127, 127], and scales s: w is about q s, and q s · mean is w · mean.

    weights: (o, i) float32, a row for each output. mean: (o, i), what each weight is multiplied with on average.
    -> (o, i), (o, 1) = max |w| / 127. To the nearest first; then those weights are rounded the other way that bring
    the error of the mean answer Σ (w - q s) mean to zero for the smallest growth of the squared errors. That is the
    correction of biases of Nagel et al., ICCV 2019, section 4.2, in the weights: it holds for inputs of any strength.
    """
    rounded, scales = round_rows(weights)
    left = weights / scales - rounded
    error = (left * mean).sum(1, keepdim=True)
    other = torch.where(left >= 0, 1.0, -1.0)
    helps = (other * mean * error > 0) & ((rounded + other).abs() <= _LARGEST)
    growth, gain = 1 - 2 * left.abs(), mean.abs()
    price = torch.where(helps, growth / gain.clamp(min=1e-30), torch.inf)
    found, places = price.topk(min(_MOST_CHANGED, weights.shape[1]), dim=1, largest=False)
    taken = torch.where(found.isinf(), 0.0, gain.gather(1, places)).cumsum(1)
    # as many of them as leave the smallest error; none, if all would
    count = torch.cat([error.abs(), (error.abs() - taken).abs()], 1).argmin(1, keepdim=True)
    changed = (torch.arange(places.shape[1]) < count) & found.isfinite()
    return rounded.scatter_add(1, places, other.gather(1, places) * changed), scales


def round_for_smooth_maps(kernels: Tensor) -> tuple[Tensor, Tensor]:
    """Rounded kernels q and scales s of convolutions that see one channel each, for maps whose neighbours are alike.

    kernels: (c, *size) float32 -> (c, *size) whole numbers in [-127, 127], (c, 1, …). The squared error of an answer
    is Σ e_a H_ab e_b for errors e of a kernel's weights and H_ab = 0.9^|a - b|, the correlation of two places |a - b|
    apart. Rounding to the nearest leaves errors that add up; here, of 20 scales, each with three weights rounded the
    other way where that helps most, the one with the smallest error is taken.
    """
    places = torch.cartesian_prod(*(torch.arange(float(side)) for side in kernels.shape[1:]))
    places = places.reshape(-1, kernels.ndim - 1)
    alike = _SMOOTH ** torch.cdist(places, places)
    weights = kernels.flatten(1)
    scales = _row_scales(weights, 1) * _SCALES[:, None, None]  # (20, c, 1)
    exact = weights / scales
    rounded = exact.round().clamp(-_LARGEST, _LARGEST)
    for _ in range(3):
        slope = (exact - rounded) @ alike
        step = slope.sign()
        gain = (2 * slope.abs() - alike.diagonal()).masked_fill((rounded + step).abs() > _LARGEST, -1)
        best = gain.argmax(-1, keepdim=True)
        rounded = rounded.scatter_add(-1, best, torch.where(gain.gather(-1, best) > 0, step.gather(-1, best), 0))
    left = weights - rounded * scales
    chosen = ((left @ alike) * left).sum(-1).argmin(0)  # (c,)
    channels = torch.arange(len(kernels))
    each = scales[chosen, channels].reshape(-1, *[1] * (kernels.ndim - 1))
    return rounded[chosen, channels].reshape(kernels.shape), each


def _row_scales(weights: Tensor, axis: int) -> Tensor:
    """Above 0 for rows of zeros too."""
    return weights.abs().amax(axis, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny * _LARGEST) / _LARGEST
