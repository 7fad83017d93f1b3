"""From a raw sound to the waveform that weights expect."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..data import PREPROCESSES, Dataset, Finding, as_mono, collate, read_audio, report
from ..data._dataset import known_lengths
from ..data.preparation import Prepared, pair
from ..errors import ConfigurationError
from ._audio_input import AudioInput

AUGMENTATIONS: Mapping[str, str] = {
    "none": "as it is, as in evaluation",
    "standard": "louder or softer by up to 6 dB, begun up to a tenth of its length earlier or later",
}


@final
@PREPROCESSES.register("audio")
@dataclass(frozen=True)
class AudioPreprocess:
    """One raw sound -> {"waveform": (samples,) float32, "attention_mask": (samples,) int64}.

    A raw sound is a path, or (samples, rate) with samples (n,) or (channels, n) as array or tensor; samples alone are
    taken as being at the weights' rate. Channels are averaged, and the rate is brought to that of the weights.
    spec: what the weights were trained on. augmentation: a key of AUGMENTATIONS.
    """

    reads: ClassVar[str] = "sound"

    spec: AudioInput
    augmentation: str = "none"

    def __post_init__(self) -> None:
        if self.augmentation not in AUGMENTATIONS:
            raise ConfigurationError(f"augmentation={self.augmentation!r}; possible: {', '.join(AUGMENTATIONS)}.")

    def __call__(self, raw: Any) -> dict[str, Tensor]:
        """The waveform of one raw sound, cut or filled up with silence to what the network reads."""
        samples = self._samples(raw)
        if self.augmentation != "none":
            samples = _moved(samples) * 10 ** float(torch.empty(()).uniform_(-0.3, 0.3))
        samples = samples[: self.spec.longest]
        if self.spec.normalise:
            # Baevski et al., wav2vec 2.0, NeurIPS 2020, section 4.2
            samples = (samples - samples.mean()) / torch.sqrt(samples.var(correction=0) + 1e-7)
        real = len(samples)
        wanted = math.ceil(max(real, self.spec.shortest) / self.spec.multiple) * self.spec.multiple
        waveform = torch.nn.functional.pad(samples, (0, wanted - real))
        return {"waveform": waveform, "attention_mask": (torch.arange(wanted) < max(real, self.spec.shortest)).long()}

    def accepts(self, raw: Any) -> bool:
        """Whether `raw` still has to be preprocessed: True for paths, (samples, rate) and arrays of samples."""
        if isinstance(raw, (str, os.PathLike)) or has_rate(raw):
            return True
        return isinstance(raw, (np.ndarray, Tensor)) and raw.ndim in (1, 2)

    def for_training(self, augmentation: str = "standard") -> AudioPreprocess:
        """The same preprocessing with a random augmentation."""
        return AudioPreprocess(self.spec, augmentation)

    def wrap(self, dataset: Any, training: bool) -> Dataset:
        """`dataset` of raw sounds as one of waveforms; for training augmented, if not chosen yet."""
        augment = training and self.augmentation == "none"
        return WaveformDataset(dataset, self.for_training() if augment else self)

    def check(self, inputs: Any) -> None:
        """Raise InputMismatchError or warn when a batch is not what the weights expect."""
        report(_findings(inputs, self.spec))

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON values."""
        spec = {name: value for name, value in asdict(self.spec).items() if name != "files"}
        return {"kind": "audio", "augmentation": self.augmentation, **spec}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path | None = None) -> AudioPreprocess:
        """What to_json described. folder: where a saved model lies; sounds need nothing from it."""
        spec = {name: value for name, value in values.items() if name not in ("kind", "augmentation")}
        return cls(AudioInput(**spec), values["augmentation"])

    def _samples(self, raw: Any) -> Tensor:
        rate = self.spec.sample_rate
        if isinstance(raw, (str, os.PathLike)):
            return read_audio(raw, rate)[0]
        samples, own_rate = raw if has_rate(raw) else (raw, rate)
        return as_mono(samples, own_rate, rate)[0]


@final
class WaveformDataset(Prepared):
    """`dataset` of raw sounds made ready. `collate` fills up the sounds of a batch to its longest with silence.

    Sounds of similar length are batched together where the dataset knows its sounds' lengths.
    """

    def __init__(self, dataset: Any, preprocess: AudioPreprocess) -> None:
        super().__init__(dataset)
        self.preprocess = preprocess

    @cached_property
    def lengths(self) -> np.ndarray | None:
        """(n,) samples of each sound; None where the dataset does not have their `lengths`, in milliseconds."""
        known, spec = known_lengths(self.dataset), self.preprocess.spec
        if known is None:
            return None
        samples = known.astype(np.int64) * spec.sample_rate // 1000
        return np.maximum(samples if spec.longest is None else np.minimum(samples, spec.longest), spec.shortest)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Any]:
        raw, target = pair(self.dataset[index])
        return self.preprocess(raw), target

    def collate(self, samples: list[tuple[dict[str, Tensor], Any]]) -> tuple[dict[str, Tensor], Any]:
        """A batch {"waveform": (n, longest), "attention_mask": (n, longest)} and its targets."""
        _, targets = collate([(0, target) for _, target in samples])
        inputs = {
            name: pad_sequence([sample[name] for sample, _ in samples], batch_first=True) for name in samples[0][0]
        }
        return inputs, targets


def has_rate(raw: Any) -> bool:
    """Whether `raw` is (samples, rate)."""
    if not (isinstance(raw, tuple) and len(raw) == 2):
        return False
    return isinstance(raw[0], (np.ndarray, Tensor, list)) and isinstance(raw[1], (int, np.integer))


def _moved(samples: Tensor) -> Tensor:
    """(n,) begun earlier or later; what is pushed out at one end is gone, silence comes in at the other."""
    most = len(samples) // 10
    by = int(torch.randint(-most, most + 1, ()))
    silence = samples.new_zeros(abs(by))
    return torch.cat([silence, samples[: len(samples) - by]]) if by > 0 else torch.cat([samples[-by:], silence])


def _findings(inputs: Any, spec: AudioInput) -> list[Finding]:
    waveform = inputs.get("waveform") if isinstance(inputs, Mapping) else None
    if not isinstance(waveform, Tensor) or waveform.ndim != 2 or not waveform.is_floating_point():
        got = f"a tensor of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        words = (
            "sounds have to be {'waveform': (n, samples) real numbers, 'attention_mask': (n, samples)}; the first "
            f"batch is {got}. Pass the sounds themselves, or what model.preprocess makes of them."
        )
        return [Finding("layout", True, words)]
    if not bool(waveform.isfinite().all()):
        return [Finding("finite", True, "the first batch of sounds holds NaN or infinity.")]
    if waveform.shape[1] < spec.shortest:
        words = f"the sounds have {waveform.shape[1]} samples, and the network needs {spec.shortest} at least."
        return [Finding("length", True, words)]
    if not bool(waveform.any()):
        return [Finding("silence", False, "the first batch of sounds is silent; is the right channel read?")]
    return []
