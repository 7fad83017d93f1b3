"""Sounds whose letters are tones: what is said in them can be heard in a few steps of training."""

from __future__ import annotations

import numpy as np

RATE = 16_000


def tones(text: str) -> np.ndarray:
    """(samples,) at 16 kHz: 0.1 s for each letter of "ab ", higher from letter to letter."""
    time = np.arange(RATE // 10) / RATE
    pitches = [300 + 400 * "ab ".index(letter) for letter in text]
    return np.concatenate([np.sin(2 * np.pi * pitch * time) for pitch in pitches]).astype("f4")
