"""VGGish's network: a small VGG over log-mel spectrograms of 0.96 seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from ...audio.mel import htk_filters
from ...audio.spectrogram import first_places, full_precision, spectrogram
from ._waveforms import opened

SAMPLE_RATE = 16_000
WINDOW, HOP, TRANSFORM = 400, 160, 512  # 25 ms, 10 ms
FRAMES, BANDS = 96, 64  # of an example
SHORTEST = WINDOW + (FRAMES - 1) * HOP  # samples of one example, 0.975 s
EMBEDDING = 128
_OFFSET = 0.01  # keeps the logarithm of silence finite
_WIDTHS: tuple[int | None, ...] = (64, None, 128, None, 256, 256, None, 512, 512, None)  # None halves both sides
_DIMENSIONS = (512 * (FRAMES // 16) * (BANDS // 16), 4096, 4096, EMBEDDING)


@final
class VGGish(nn.Module):
    """Waveforms (n, samples) at 16 kHz -> (n, examples, 128), an example for each 0.96 s that are whole.

    Hershey et al., CNN Architectures for Large-Scale Audio Classification, ICASSP 2017. The released network is VGG's
    configuration A without its last group of convolutions, and ends in 128 values, none below zero.
    """

    mel: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        with torch.device("cpu"):
            filters = htk_filters(SAMPLE_RATE, TRANSFORM, BANDS, 125.0, 7500.0)
        self.register_buffer("mel", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.features = _convolutions()
        self.embeddings = _dense()

    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """See the class; also {"waveform": …, "attention_mask": …}, of which the mask is for feature_mask."""
        waveforms, _ = opened(inputs, SHORTEST)
        examples = self.log_mel(waveforms)
        maps = self.features(examples.flatten(0, 1)[:, None])
        flat = maps.permute(0, 2, 3, 1).flatten(1)  # channels last, as TensorFlow had them in training
        return self.embeddings(flat).unflatten(0, examples.shape[:2])

    def feature_mask(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor | None:
        """(n, examples), 1 for those that lie within their clip; None where all do."""
        waveforms, lengths = opened(inputs, SHORTEST)
        if lengths is None:
            return None
        return first_places(((lengths - WINDOW) // HOP + 1) // FRAMES, _examples(waveforms.shape[1])).long()

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """ln(mel energy + 0.01) of magnitudes. (n, samples) -> (n, examples, 96 frames, 64 bands)."""
        with full_precision(waveforms.device):
            magnitudes = spectrogram(waveforms.float(), self.window.float(), TRANSFORM, HOP, power=1)
            logarithms = (magnitudes @ self.mel.float() + _OFFSET).log()
        # (n, 64, examples, 96)
        examples = logarithms.transpose(1, 2).unfold(2, FRAMES, FRAMES)
        return examples.permute(0, 2, 3, 1).to(self.mel.dtype)


def _examples(samples: int) -> int:
    return ((samples - WINDOW) // HOP + 1) // FRAMES


def _convolutions() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 1
    for width in _WIDTHS:
        if width is None:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def _dense() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip(_DIMENSIONS, _DIMENSIONS[1:], strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers)


def postprocess(embeddings: Tensor, eigenvectors: Tensor, means: Tensor) -> Tensor:
    """The published form of AudioSet's features: whitened, clipped to [-2, 2], in 256 steps. (…, 128) -> the same.

    q = round(255 (clip(E (x - μ), -2, 2) + 2) / 4), whole numbers in float32; as Abu-El-Haija et al., YouTube-8M, 2016,
    arXiv:1609.08675 do it. Where x took another rounding than in the published features, q may differ by 1.
    eigenvectors: E, (128, 128), one a row. means: μ, (128,) or (128, 1).
    """
    whitened = (embeddings - means.flatten()) @ eigenvectors.T
    return ((whitened.clamp(-2, 2) + 2) * (255 / 4)).round()
