"""The voice encoder's network: an LSTM over mel powers of 1.6 seconds, and one vector of length 1 for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from ...audio.mel import slaney_filters
from ...audio.spectrogram import first_places, full_precision, spectrogram
from ...nn.pooling import average
from ._waveforms import opened

SAMPLE_RATE = 16_000
SHORTEST = 1  # samples; what is missing of a window is silence
WINDOW, HOP, BANDS = 400, 160, 40  # 25 ms, 10 ms
FRAMES, STEP = 160, 77  # of a window, and between the beginnings of two: 1.3 windows for each second
EMBEDDING = 256
_HIDDEN, _LAYERS = 256, 3
_COVERED = 3 * FRAMES * HOP // 4  # samples of its own that a window needs, unless it is the first
_LOUDNESS = 10 ** (-30 / 20)  # -30 dB of full scale, as a root mean square
_SILENCE = 1e-8  # root mean square below which a sound is not made louder any more
_NO_LENGTH = 1e-6  # below which a vector is not brought to length 1


@final
class VoiceEncoder(nn.Module):
    """Waveforms (n, samples) at 16 kHz -> (n, windows, 256), a window of 1.6 s every 0.77 s.

    Wan et al., Generalized End-to-End Loss for Speaker Verification, ICASSP 2018, section 3.2: a sound's vector is the
    mean of its windows' vectors of length 1, brought to length 1. The windows of a sound are divided by the length of
    their mean, so that their mean is that vector; normalised, each is the vector of its window alone.
    """

    mel: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        with torch.device("cpu"):
            filters = slaney_filters(SAMPLE_RATE, WINDOW, BANDS, 0.0, SAMPLE_RATE / 2)
        self.register_buffer("mel", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.lstm = nn.LSTM(BANDS, _HIDDEN, _LAYERS, batch_first=True)
        self.linear = nn.Linear(_HIDDEN, EMBEDDING)

    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """See the class; also {"waveform": …, "attention_mask": …}, of which the mask says where each sound ends."""
        waveforms, lengths = opened(inputs, SHORTEST)
        windows = self.mels(waveforms, lengths)
        states = self._last_states(windows.flatten(0, 1))
        vectors: Tensor = normalize(self.linear(states).relu(), dim=1, eps=_NO_LENGTH)
        vectors = vectors.reshape(*windows.shape[:2], EMBEDDING)
        mask = _real_windows(waveforms, lengths)
        weights = vectors.new_ones(vectors.shape[:2]) if mask is None else mask.to(vectors.dtype)
        length: Tensor = average(vectors, weights).norm(dim=1).clamp(min=_NO_LENGTH)
        return vectors / length[:, None, None]

    def feature_mask(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor | None:
        """(n, windows), 1 for those that belong to their sound; None where all do."""
        return _real_windows(*opened(inputs, SHORTEST))

    def mels(self, waveforms: Tensor, lengths: Tensor | None) -> Tensor:
        """Powers in mel bands, not their logarithms. (n, samples) -> (n, windows, 160 frames, 40 bands).

        Sounds below -30 dB of full scale are made as loud as that. Frame t has sample 160 t in its middle, and all
        around a sound is silence. lengths: (n,) samples of each sound that are real, or None where all are.
        """
        frames = FRAMES + (windows_of(waveforms.shape[1]) - 1) * STEP
        behind = (frames - 1) * HOP + WINDOW // 2 - waveforms.shape[1]
        with full_precision(waveforms.device):
            sounds = pad(loud_enough(waveforms.float(), lengths), (WINDOW // 2, behind))
            powers = spectrogram(sounds, self.window.float(), WINDOW, HOP, power=2) @ self.mel.float()
        return powers.unfold(1, FRAMES, STEP).transpose(2, 3).to(self.mel.dtype)

    def _last_states(self, windows: Tensor) -> Tensor:
        """Of the last layer behind the last frame. (windows, 160, 40) -> (windows, 256).

        Always in float32 or more: in 160 steps the rounding of bfloat16 adds up, and on processors that do not multiply
        it torch has no LSTM in it.
        """
        with full_precision(windows.device):
            if windows.dtype not in (torch.bfloat16, torch.float16):
                states: Tensor = self.lstm(windows)[1][0]
                return states[-1]
            layers = self.lstm.num_layers
            weights = [weight.float() for layer in self.lstm.all_weights for weight in layer]
            start = torch.zeros(layers, len(windows), self.lstm.hidden_size, device=windows.device)
            states = torch.lstm(windows.float(), (start, start), weights, True, layers, 0.0, False, False, True)[1]
        return states[-1].to(windows.dtype)


def windows_of(samples: int) -> int:
    """Windows of a sound: one, and each further one of which three quarters lie within the sound."""
    return max(1, (samples - _COVERED) // (STEP * HOP) + 1)


def loud_enough(waveforms: Tensor, lengths: Tensor | None) -> Tensor:
    """Each sound, silent behind its end, scaled to -30 dB of full scale where it is below. (n, samples) -> the same."""
    samples = waveforms.shape[1]
    if lengths is not None:
        waveforms = waveforms * first_places(lengths, samples)
    real = samples if lengths is None else lengths[:, None]
    power = waveforms.square().sum(1, keepdim=True) / real
    return waveforms * (_LOUDNESS / power.clamp(min=_SILENCE**2).sqrt()).clamp(min=1)


def _real_windows(waveforms: Tensor, lengths: Tensor | None) -> Tensor | None:
    if lengths is None:
        return None
    counts = ((lengths - _COVERED) // (STEP * HOP) + 1).clamp(min=1)
    return first_places(counts, windows_of(waveforms.shape[1])).long()
