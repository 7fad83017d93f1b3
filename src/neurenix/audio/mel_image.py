"""From a raw sound to the picture of its log-mel spectrogram that a network of images reads."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from ..data import PREPROCESSES, Dataset, PreparedDataset, report
from ..data.findings import Finding
from ..errors import ConfigurationError
from ._audio_input import AudioInput
from ._mel_image_input import MelImageInput
from .mel import slaney_filters
from .preprocess import AudioPreprocess
from .spec_augment import mask_stripes
from .spectrogram import spectrogram

AUGMENTATIONS: Mapping[str, str] = {
    "none": "as it is, as in evaluation",
    "standard": "louder or softer, begun earlier or later, and a stripe of time and one of bands hidden",
}
_LEAST = 1e-10  # power, of which the logarithm is taken
_RANGE = 80.0  # decibels below the loudest that still show
_HIDDEN = 8  # stripes are up to an eighth of the picture


@final
@PREPROCESSES.register("mel_image")
@dataclass(frozen=True)
class MelImagePreprocess:
    """One raw sound -> (1, height, width) float32: the picture of its log-mel spectrogram.

    A raw sound is what AudioPreprocess reads: a path, (samples, rate), or samples at the spec's rate.
    spec: the picture. augmentation: a key of audio.mel_image.AUGMENTATIONS.
    """

    reads: ClassVar[str] = "sound"

    spec: MelImageInput
    augmentation: str = "none"

    def __post_init__(self) -> None:
        if self.augmentation not in AUGMENTATIONS:
            raise ConfigurationError(f"augmentation={self.augmentation!r}; possible: {', '.join(AUGMENTATIONS)}.")

    def __call__(self, raw: Any) -> Tensor:
        """The picture of one raw sound."""
        samples = self._waveforms(raw)["waveform"]
        samples = torch.nn.functional.pad(samples, (0, self.spec.samples - len(samples)))
        picture = mel_picture(samples, self.spec)
        std, mean = torch.std_mean(picture, correction=0)
        if self.spec.mean is not None and self.spec.std is not None:
            mean, std = torch.tensor(self.spec.mean), torch.tensor(self.spec.std)
        picture = (picture - mean) / std.clamp(min=1e-6)  # silence becomes 0
        return picture if self.augmentation == "none" else _striped(picture)

    def accepts(self, raw: Any) -> bool:
        """Whether `raw` still has to be preprocessed: True for paths, (samples, rate) and arrays of samples."""
        return self._waveforms.accepts(raw)

    def example(self) -> Any:
        """A raw sound."""
        return np.zeros(self.spec.samples, dtype=np.float32)

    def for_training(self, augmentation: str = "standard") -> MelImagePreprocess:
        """The same preprocessing with a random augmentation."""
        return MelImagePreprocess(self.spec, augmentation)

    def wrap(self, dataset: Any, training: bool) -> Dataset:
        """`dataset` of raw sounds as one of pictures; for training augmented, if not chosen yet."""
        augment = training and self.augmentation == "none"
        return PreparedDataset(dataset, self.for_training() if augment else self)

    def check(self, inputs: Any) -> None:
        """Raise InputMismatchError when a batch is no (n, 1, height, width) of finite numbers."""
        report(_findings(inputs, self.spec))

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON values."""
        return {
            "kind": "mel_image",
            "augmentation": self.augmentation,
            **asdict(self.spec),
            "size": list(self.spec.size),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path | None = None) -> MelImagePreprocess:
        """What to_json described. folder: where a saved model lies; sounds need nothing from it."""
        spec = {name: value for name, value in values.items() if name not in ("kind", "augmentation", "size")}
        return cls(MelImageInput(**spec, size=(int(values["size"][0]), int(values["size"][1]))), values["augmentation"])

    @property
    def _waveforms(self) -> AudioPreprocess:
        spec = AudioInput(sample_rate=self.spec.sample_rate, shortest=1, longest=self.spec.samples)
        return AudioPreprocess(spec, self.augmentation)


def mel_picture(samples: Tensor, spec: MelImageInput) -> Tensor:
    """(spec.samples,) -> (1, height, width): decibels of the mel bands, down to 80 below the loudest, resized
    bilinearly.
    """
    length, hop = (round(time * spec.sample_rate / 1000) for time in (spec.window, spec.hop))
    size = 2 ** (length - 1).bit_length()
    powers = spectrogram(samples[None], torch.hann_window(length), size, hop, power=2)[0]
    decibels = 10 * (powers @ _filters(spec.sample_rate, size, spec.mels)).clamp(min=_LEAST).log10()
    decibels = decibels.clamp(min=float(decibels.max()) - _RANGE)
    picture = decibels.T.flip(0)[None, None]
    return torch.nn.functional.interpolate(picture, size=spec.size, mode="bilinear", antialias=True)[0]


@functools.lru_cache(maxsize=8)
def _filters(sample_rate: int, size: int, count: int) -> Tensor:
    return slaney_filters(sample_rate, size, count, 0.0, sample_rate / 2)


def _striped(picture: Tensor) -> Tensor:
    """(1, height, width) with a stripe of either direction set to its mean, 0."""
    for dim in (1, 2):
        picture = mask_stripes(picture, dim, max(1, picture.shape[dim] // _HIDDEN), 1)
    return picture


def _findings(inputs: Any, spec: MelImageInput) -> list[Finding]:
    if not isinstance(inputs, Tensor) or inputs.ndim != 4 or inputs.shape[1] != 1 or inputs.shape[2:] != spec.size:
        got = f"a tensor of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        words = (
            f"this model reads log-mel pictures (n, 1, {spec.size[0]}, {spec.size[1]}), and the first batch is {got}. "
            "Give the sounds themselves, and model.preprocess makes the pictures."
        )
        return [Finding("layout", True, words)]
    if not bool(inputs.isfinite().all()):
        return [Finding("finite", True, "the first batch of sounds holds NaN or infinity.")]
    return []
