"""Sounds: what weights expect of them, reading, resampling, spectrograms and augmentation."""

from __future__ import annotations

from ..data.audio_files import read_audio as read_audio
from ._input import AudioInput as AudioInput
from .augmentation import SpecAugment as SpecAugment
from .clips import AudioDataset as AudioDataset
from .guard import check_waveforms as check_waveforms
from .preprocess import AudioPreprocess as AudioPreprocess

__all__ = ["AudioDataset", "AudioInput", "AudioPreprocess", "SpecAugment", "check_waveforms", "read_audio"]
