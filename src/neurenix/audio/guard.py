"""A look at the first batch of waveforms: is it what the weights were trained on?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..data import Finding
from ._input import AudioInput

_PEAK = 8.0  # reals in [-1, 1] exceed 1 by a little where they were resampled, 16-bit values by thousands


def check_waveforms(inputs: Any, spec: AudioInput) -> list[Finding]:
    """What does not fit in {"waveform": (n, samples), "attention_mask": (n, samples)}; empty when all is well."""
    waveforms = inputs.get("waveform") if isinstance(inputs, Mapping) else None
    if not isinstance(waveforms, Tensor) or waveforms.ndim != 2 or not waveforms.numel():
        got = f"a tensor of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        words = (
            "sounds have to be {'waveform': (n, samples), 'attention_mask': (n, samples)}; the first batch is "
            f"{got}. Pass paths or (samples, rate), and model.preprocess does the rest."
        )
        return [Finding("layout", True, words)]
    if waveforms.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        words = f"the waveforms are {waveforms.dtype}; give float32 in [-1, 1], which model.preprocess makes."
        return [Finding("dtype", True, words)]
    mask = inputs.get("attention_mask")
    if mask is not None and mask.shape != waveforms.shape:
        words = f"attention_mask {tuple(mask.shape)} and waveform {tuple(waveforms.shape)} have to have one shape."
        return [Finding("mask", True, words)]
    return _length(waveforms, spec) + _values(waveforms.detach().float(), mask, spec)


def _length(waveforms: Tensor, spec: AudioInput) -> list[Finding]:
    if waveforms.shape[1] >= spec.min_length:
        return []
    words = (
        f"the clips have {waveforms.shape[1]} samples, and the network reads {spec.min_length} or more; "
        "model.preprocess fills them up."
    )
    return [Finding("length", True, words)]


def _values(waveforms: Tensor, mask: Tensor | None, spec: AudioInput) -> list[Finding]:
    finite = torch.isfinite(waveforms).all(dim=1)
    if not bool(finite.all()):
        bad = (~finite).nonzero().flatten().tolist()
        return [Finding("finite", True, f"clips {bad[:8]} of the first batch hold NaN or infinite samples.")]
    if not spec.normalise:
        peak = float(waveforms.abs().max())
        words = f"the waveforms reach {peak:.4g} and the weights expect [-1, 1]; divide 16-bit values by 32768."
        return [Finding("range", True, words)] if peak > _PEAK else []
    real = torch.ones_like(waveforms) if mask is None else mask.to(waveforms.dtype)
    mean = (waveforms * real).sum(1) / real.sum(1).clamp(min=1)
    deviation = ((waveforms.square() * real).sum(1) / real.sum(1).clamp(min=1) - mean.square()).clamp(min=0).sqrt()
    off = (mean.abs() > 0.05) | ((deviation - 1).abs() > 0.1) & (deviation > 1e-6)
    words = (
        "the weights expect clips of zero mean and unit variance, and these are not; let model.preprocess make them."
    )
    return [Finding("normalisation", False, words)] if bool(off.any()) else []
