"""From a raw sound to the waveform that weights expect."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from ..data import PREPROCESSES, Dataset, report
from ..data.audio_files import read_audio
from ..errors import ConfigurationError, InputMismatchError, UnreadableSampleError
from ._input import AudioInput
from .augmentation import AUGMENTATIONS, random_gain, random_part, random_shift
from .clips import AudioDataset
from .guard import check_waveforms
from .waveforms import mono, resample

RawAudio: TypeAlias = "str | os.PathLike[str] | tuple[Any, int] | Mapping[str, Any] | np.ndarray | Tensor"
_ON_SILENCE = ("raise", "keep")


@final
@PREPROCESSES.register("audio")
@dataclass(frozen=True)
class AudioPreprocess:
    """One raw sound -> {"waveform": (samples,) float32, "attention_mask": (samples,) int64, 0 where filled up}.

    A raw sound is a path; (samples, rate); {"array": samples, "sampling_rate": rate}, as Hugging Face's datasets give
    it; or samples alone, which then have the model's rate. Samples are (frames,), (frames, channels) or
    (channels, frames), the shorter side being the channels: reals in [-1, 1], or int16, int32, int8 or uint8, which are
    scaled. Channels are averaged, other rates resampled, clips cut and filled up to what the network reads.
    spec: what the weights were trained on. augmentation: a key of AUGMENTATIONS.
    on_silence: "raise" makes a clip without any sound an unreadable sample, "keep" lets it through as zeros.

    Raises UnreadableSampleError for a file that cannot be read and for samples that are empty, NaN, infinite or silent,
    InputMismatchError for what is no sound: other types of numbers, more than two dimensions, impossible rates.
    """

    spec: AudioInput
    augmentation: str = "none"
    on_silence: str = "raise"

    def __post_init__(self) -> None:
        for name in (self.augmentation, self.spec.augmentation):
            if name not in AUGMENTATIONS:
                raise ConfigurationError(f"augmentation={name!r}; possible: {', '.join(AUGMENTATIONS)}.")
        if self.on_silence not in _ON_SILENCE:
            raise ConfigurationError(f"on_silence={self.on_silence!r}; possible: {', '.join(_ON_SILENCE)}.")

    def __call__(self, raw: RawAudio) -> dict[str, Tensor]:
        """The waveform of one raw sound, with its mask."""
        samples, rate = self._opened(raw)
        waveform = resample(mono(samples), rate, self.spec.sample_rate)
        if self.on_silence == "raise" and np.ptp(waveform) == 0:
            raise UnreadableSampleError(
                "the clip is silent: all its samples are equal. Leave it out (on_bad='skip'), or, where silence "
                "is meant: model.preprocess = dataclasses.replace(model.preprocess, on_silence='keep')."
            )
        clip = self._augmented(torch.from_numpy(waveform))
        if self.spec.normalise:
            clip = normalised(clip)
        return filled(clip, self.spec.min_length)

    def accepts(self, raw: Any) -> bool:
        """Whether `raw` is a sound; False for waveforms that are ready with their mask."""
        if isinstance(raw, (str, os.PathLike)):
            return True
        if isinstance(raw, Mapping):
            return {"array", "sampling_rate"} <= raw.keys()
        if isinstance(raw, tuple):
            return len(raw) == 2 and _is_array(raw[0]) and not _is_array(raw[1])
        return _is_array(raw) and raw.ndim in (1, 2)

    def for_training(self, augmentation: str | None = None) -> AudioPreprocess:
        """The same preprocessing with a random augmentation; None is the one that suits the weights."""
        return replace(self, augmentation=augmentation or self.spec.augmentation)

    def wrap(self, dataset: Any, training: bool) -> Dataset:
        """`dataset` of raw sounds as one of waveforms; for training augmented, if not chosen yet."""
        augment = training and self.augmentation == "none"
        return AudioDataset(dataset, self.for_training() if augment else self)

    def check(self, inputs: Any) -> None:
        """Raise InputMismatchError or warn when a batch is not what the weights expect."""
        report(check_waveforms(inputs, self.spec))

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON values."""
        return {
            "kind": "audio",
            "augmentation": self.augmentation,
            "on_silence": self.on_silence,
            "spec": asdict(self.spec),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path | None = None) -> AudioPreprocess:
        """What to_json described. folder: where a saved model lies; sounds need nothing from it."""
        return cls(AudioInput(**values["spec"]), values["augmentation"], values["on_silence"])

    def _opened(self, raw: RawAudio) -> tuple[Any, int]:
        """(samples, rate) of a sound of any accepted kind."""
        if isinstance(raw, (str, os.PathLike)):
            return read_audio(raw)
        if isinstance(raw, Mapping):
            return raw["array"], raw["sampling_rate"]
        if isinstance(raw, tuple) and len(raw) == 2:
            return raw[0], raw[1]
        if not _is_array(raw):
            raise InputMismatchError(
                f"{type(raw).__name__} is no sound; give a path, (samples, rate), or samples at "
                f"{self.spec.sample_rate} Hz."
            )
        return raw, self.spec.sample_rate

    def _augmented(self, clip: Tensor) -> Tensor:
        """(samples,) cut to the longest clip and, in training, changed at random."""
        longest = self.spec.max_length
        if self.augmentation != "standard":
            clip = clip[:longest]
            return clip if self.augmentation == "none" else random_gain(clip)
        part = random_part(clip, longest) if longest else clip
        return random_gain(random_shift(part))


def normalised(clip: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance + 1e-7) of a clip (samples,), which silence leaves at zero."""
    return (clip - clip.mean()) / (clip.var(unbiased=False) + 1e-7).sqrt()


def filled(clip: Tensor, min_length: int) -> dict[str, Tensor]:
    """A clip (samples,) with its mask; shorter ones are filled up with zeros, where the mask is 0."""
    missing = max(0, min_length - len(clip))
    mask = torch.ones(len(clip), dtype=torch.int64)
    return {
        "waveform": torch.nn.functional.pad(clip, (0, missing)),
        "attention_mask": torch.nn.functional.pad(mask, (0, missing)),
    }


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, Tensor)) and value.ndim > 0
