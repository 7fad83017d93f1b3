"""Mel filter banks: from the powers of a short-time Fourier transform to what the ear tells apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_BREAK_HERTZ, _BREAK_MEL = 1000.0, 15.0  # Slaney's scale is linear below and logarithmic above
_LINEAR_STEP, _LOG_STEP = 200.0 / 3, math.log(6.4) / 27.0


def slaney_mel(hertz: Tensor) -> Tensor:
    """Slaney's scale: 3 f / 200 below 1 kHz, 15 + 27 ln(f / 1000) / ln 6.4 above. (…) hertz -> (…) mel.

    Slaney, Auditory Toolbox, Interval Research 1998.
    """
    above = _BREAK_MEL + (hertz.clamp(min=_BREAK_HERTZ) / _BREAK_HERTZ).log() / _LOG_STEP
    return torch.where(hertz < _BREAK_HERTZ, hertz / _LINEAR_STEP, above)


def slaney_hertz(mel: Tensor) -> Tensor:
    """The inverse of slaney_mel. (…) mel -> (…) hertz."""
    above = _BREAK_HERTZ * ((mel - _BREAK_MEL) * _LOG_STEP).exp()
    return torch.where(mel < _BREAK_MEL, mel * _LINEAR_STEP, above)


def htk_mel(hertz: Tensor) -> Tensor:
    """HTK's scale, 1127 ln(1 + f / 700). (…) hertz -> (…) mel. Young et al., The HTK Book."""
    return 1127.0 * (1.0 + hertz / 700.0).log()


def slaney_filters(sample_rate: int, size: int, count: int, lowest: float, highest: float) -> Tensor:
    """Triangles that are linear in hertz, each of area 1. -> (size // 2 + 1, count) float32.

    Filter m rises from f(m - 1) to f(m) and falls to f(m + 1), the f equally spaced on Slaney's scale, and is scaled
    by 2 / (f(m + 1) - f(m - 1)).
    sample_rate, lowest, highest: in hertz. size: of the Fourier transform. count: of filters.
    """
    ends = slaney_mel(torch.tensor([lowest, highest], dtype=torch.float64))
    edges = slaney_hertz(torch.linspace(float(ends[0]), float(ends[1]), count + 2, dtype=torch.float64))
    bins = torch.linspace(0, sample_rate / 2, size // 2 + 1, dtype=torch.float64)
    return (_triangles(bins, edges) * (2.0 / (edges[2:] - edges[:-2]))).float()


def htk_filters(sample_rate: int, size: int, count: int, lowest: float, highest: float) -> Tensor:
    """Triangles that are linear in mel, each of height 1; the bin at 0 Hz belongs to none. -> (size // 2 + 1, count).

    As VGGish has them: Hershey et al., CNN Architectures for Large-Scale Audio Classification, ICASSP 2017.
    sample_rate, lowest, highest: in hertz. size: of the Fourier transform. count: of filters.
    """
    ends = htk_mel(torch.tensor([lowest, highest], dtype=torch.float64))
    edges = torch.linspace(float(ends[0]), float(ends[1]), count + 2, dtype=torch.float64)
    filters = _triangles(htk_mel(torch.linspace(0, sample_rate / 2, size // 2 + 1, dtype=torch.float64)), edges)
    filters[0] = 0
    return filters.float()


def _triangles(bins: Tensor, edges: Tensor) -> Tensor:
    """max(0, min((x - a) / (b - a), (c - x) / (c - b))). bins: (k,), edges: (count + 2,) -> (k, count)."""
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)
