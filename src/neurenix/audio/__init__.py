"""Sounds: what weights expect of them, and preprocessing."""

from __future__ import annotations

from ._audio_input import AudioInput as AudioInput
from .preprocess import AUGMENTATIONS as AUGMENTATIONS
from .preprocess import AudioPreprocess as AudioPreprocess
from .preprocess import WaveformDataset as WaveformDataset

__all__ = ["AUGMENTATIONS", "AudioInput", "AudioPreprocess", "WaveformDataset"]
