"""Samples of any type, in any layout, at any rate -> one float32 waveform."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from ..errors import InputMismatchError, UnreadableSampleError
from ..packages import require

# type -> (value of silence, value of full scale above it)
_SCALES = {"int8": (0, 2**7), "int16": (0, 2**15), "int32": (0, 2**31), "uint8": (2**7, 2**7)}
_HIGHEST_RATE = 768_000  # in Hz; more than any recorder has


def mono(samples: Any) -> np.ndarray:
    """(frames,), (frames, channels) or (channels, frames) of reals or integers -> (frames,) float32, averaged.

    Integers are scaled to [-1, 1]. The shorter side of two is the channels; of a square one the last is.
    Raises InputMismatchError for other shapes and types, UnreadableSampleError for no samples, NaN and infinity.
    """
    array = samples.detach().cpu().numpy() if isinstance(samples, Tensor) else np.asarray(samples)
    if array.ndim not in (1, 2):
        raise InputMismatchError(f"a sound has the shape {array.shape}; give (frames,) or (frames, channels).")
    if not array.size:
        raise UnreadableSampleError(f"the sound is empty: its shape is {array.shape}.")
    scaled = _scaled(array)
    if not np.isfinite(scaled).all():
        raise UnreadableSampleError("the sound holds NaN or infinite samples.")
    if scaled.ndim == 1:
        return scaled
    return scaled.mean(axis=0 if scaled.shape[0] < scaled.shape[1] else 1, dtype=np.float32)


def _scaled(array: np.ndarray) -> np.ndarray:
    """Any type of numbers as float32 in [-1, 1]."""
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype.name not in _SCALES:
        raise InputMismatchError(
            f"a sound of type {array.dtype} has no known range; give reals in [-1, 1], or {', '.join(_SCALES)}."
        )
    silence, full = _SCALES[array.dtype.name]
    return ((array.astype(np.float64) - silence) / full).astype(np.float32)


def resample(waveform: np.ndarray, rate: Any, wanted: int) -> np.ndarray:
    """(frames,) float32 at `rate` -> about frames * wanted / rate of them, by soxr's band-limited interpolation.

    Raises InputMismatchError for what is no rate in Hz.
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, np.integer)) or not 0 < rate <= _HIGHEST_RATE:
        raise InputMismatchError(
            f"a sound came with the rate {rate!r}; it is a whole number of samples per second, 1 to {_HIGHEST_RATE}."
        )
    if rate == wanted:
        return waveform
    soxr = require("soxr", purpose=f"resampling from {rate} Hz to the model's {wanted} Hz")
    resampled: np.ndarray = soxr.resample(waveform, int(rate), wanted)
    if not len(resampled):
        raise UnreadableSampleError(f"{len(waveform)} samples at {rate} Hz are too few to be resampled to {wanted} Hz.")
    return resampled
