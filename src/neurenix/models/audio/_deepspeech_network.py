"""Deep Speech 2's network: convolutions over a spectrogram, then recurrent layers with batch norms between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ...audio.spectrogram import first_places, full_precision, mirrored, spectrogram
from ._waveforms import opened

SAMPLE_RATE = 16_000
WINDOW, HOP = 320, 160  # 20 ms, 10 ms
BANDS = WINDOW // 2 + 1
SHORTEST = WINDOW  # samples, more than the half window that is mirrored at either end
CHANNELS = 32
_CEILING = 20.0  # Amodei et al., section 3.1: min(max(x, 0), 20)
RECURRENT: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


@dataclass(frozen=True, kw_only=True)
class DeepSpeechSizes:
    """hidden: values of a recurrent layer, of one direction. layers: of them. kind: a key of RECURRENT.

    bidirectional: layers run both ways, and their sum is passed on; else `context` frames ahead are looked at, by one
    filter for each value, after the last of them.
    """

    hidden: int = 1024
    layers: int = 5
    kind: str = "lstm"
    bidirectional: bool = True
    context: int = 20


@final
class SoundFrames:
    """How many of a sound's frames are real, (n,), by its mask; None where all are. For heads that hold no module."""

    def __call__(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor | None:
        """See the class."""
        _, lengths = opened(inputs, SHORTEST)
        return None if lengths is None else _frames(lengths)


@final
class MaskedConvolutions(nn.Module):
    """(n, 1, 161 bands, frames) -> (n, 32 · 41, frames / 2), zero behind what is real after each layer.

    So a sound has the same features however far its batch is filled up behind it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seq_module = nn.Sequential(
            nn.Conv2d(1, CHANNELS, (41, 11), stride=(2, 2), padding=(20, 5)),
            nn.BatchNorm2d(CHANNELS),
            nn.Hardtanh(0.0, _CEILING),
            nn.Conv2d(CHANNELS, CHANNELS, (21, 11), stride=(2, 1), padding=(10, 5)),
            nn.BatchNorm2d(CHANNELS),
            nn.Hardtanh(0.0, _CEILING),
        )

    def forward(self, maps: Tensor, frames: Tensor | None) -> Tensor:
        """frames: (n,) that are real after the first layer; None where all are."""
        for layer in self.seq_module:
            maps = layer(maps)
            if frames is not None:
                maps = maps * first_places(frames, maps.shape[3])[:, None, None].to(maps.dtype)
        return maps.flatten(1, 2)


@final
class FrameNorm(nn.Module):
    """Batch norm of each value over the real frames of all sounds. Amodei et al., section 3.2.

    The published training counts the frames behind the sounds too; what a sound contributes then depends on the batch
    that it comes in. Without training both are the same.
    module: a norm of (frames of all sounds, width).
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, series: Tensor, frames: Tensor | None) -> Tensor:
        """(n, frames, width) -> the same, 0 behind the frames that are real, (n,); None where all are."""
        if frames is None:
            return cast(Tensor, self.module(series.flatten(0, 1))).unflatten(0, series.shape[:2])
        packed = _packed(series, frames)
        data = self.module(packed.data)
        found = PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        return _unpacked(found, series.shape[1])


@final
class BatchRNN(nn.Module):
    """(n, frames, width) -> (n, frames, hidden): a norm, except in front of the first layer, and a recurrent layer.

    out_features: hidden, for adapters behind it.
    """

    def __init__(self, width: int, sizes: DeepSpeechSizes, normalises: bool) -> None:
        super().__init__()
        self.out_features = sizes.hidden
        self.batch_norm = FrameNorm(nn.BatchNorm1d(width)) if normalises else None
        self.rnn = RECURRENT[sizes.kind](width, sizes.hidden, batch_first=True, bidirectional=sizes.bidirectional)

    def forward(self, series: Tensor, frames: Tensor | None) -> Tensor:
        """frames: (n,) that are real; those behind are 0 in the answer, and read by no layer."""
        if self.batch_norm is not None:
            series = self.batch_norm(series, frames)
        if frames is None:
            found: Tensor = self.rnn(series)[0]
        else:
            found = _unpacked(self.rnn(_packed(series, frames))[0], series.shape[1])
        return found.unflatten(2, (2, -1)).sum(2) if self.rnn.bidirectional else found


@final
class Lookahead(nn.Module):
    """(n, frames, width) -> the same: Σ_j w[c, j] x[t + j, c], zeros behind the end.

    Wang et al., Lookahead Convolution Layer for Unidirectional Recurrent Neural Networks, ICLR workshop 2016, eq. 1.
    """

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.context = context
        self.conv = nn.Conv1d(width, width, context, groups=width, bias=False)

    def forward(self, series: Tensor) -> Tensor:
        """See the class."""
        return cast(Tensor, self.conv(pad(series.transpose(1, 2), (0, self.context - 1)))).transpose(1, 2)


@final
class DeepSpeech2(nn.Module):
    """Waveforms (n, samples) at 16 kHz -> features (n, frames, hidden), a frame for each 20 ms.

    Amodei et al., Deep Speech 2: End-to-End Speech Recognition in English and Mandarin, ICML 2016, arXiv:1512.02595.
    """

    window: Tensor

    def __init__(self, sizes: DeepSpeechSizes) -> None:
        super().__init__()
        self.frames = SoundFrames()
        self.register_buffer("window", torch.hamming_window(WINDOW), persistent=False)
        self.conv = MaskedConvolutions()
        width = CHANNELS * _halved_bands(_halved_bands(BANDS))
        self.rnns = nn.ModuleList(
            BatchRNN(sizes.hidden if number else width, sizes, normalises=number > 0) for number in range(sizes.layers)
        )
        self.lookahead = None
        if not sizes.bidirectional:
            self.lookahead = nn.Sequential(Lookahead(sizes.hidden, sizes.context), nn.Hardtanh(0.0, _CEILING))
        self.fc = nn.Sequential(FrameNorm(nn.Sequential(nn.BatchNorm1d(sizes.hidden))))

    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """See the class; also {"waveform": …, "attention_mask": …}. Frames behind a sound's end are 0."""
        waveforms, lengths = opened(inputs, SHORTEST)
        frames = None if lengths is None else _frames(lengths)
        series = self.conv(self.spectrograms(waveforms, lengths), frames).transpose(1, 2)
        for layer in self.rnns:
            series = layer(series, frames)
        if self.lookahead is not None:
            series = self.lookahead(series)
        return cast(Tensor, self.fc[0](series, frames))

    def feature_mask(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor | None:
        """(n, frames), 1 where a frame is real; None where all are."""
        waveforms, lengths = opened(inputs, SHORTEST)
        if lengths is None:
            return None
        return first_places(_frames(lengths), waveforms.shape[1] // HOP // 2 + 1).long()

    def spectrograms(self, waveforms: Tensor, lengths: Tensor | None) -> Tensor:
        """ln(1 + magnitude), each sound brought to mean 0 and deviation 1. (n, samples) -> (n, 1, 161 bands, frames).

        lengths: (n,) samples that are real; frames behind are 0. Silence is 0 throughout.
        """
        with full_precision(waveforms.device):
            around = mirrored(waveforms.float(), lengths, WINDOW // 2)
            magnitudes = spectrogram(around, self.window.float(), WINDOW, HOP, power=1).log1p()  # (n, frames, bands)
            real = torch.ones_like(magnitudes[:, :, :1])
            if lengths is not None:
                real = first_places(1 + lengths // HOP, magnitudes.shape[1])[:, :, None].to(magnitudes.dtype)
            count = real.sum(1, keepdim=True) * BANDS
            centred = (magnitudes - (magnitudes * real).sum((1, 2), keepdim=True) / count) * real
            deviation = (centred.square().sum((1, 2), keepdim=True) / (count - 1)).sqrt()
            found = centred / deviation.clamp(min=torch.finfo(deviation.dtype).tiny)
        return found.transpose(1, 2)[:, None].to(next(self.conv.parameters()).dtype)


def _packed(series: Tensor, frames: Tensor) -> PackedSequence:
    return pack_padded_sequence(series, frames.cpu(), batch_first=True, enforce_sorted=False)


def _unpacked(packed: PackedSequence, length: int) -> Tensor:
    return pad_packed_sequence(packed, batch_first=True, total_length=length)[0]


def _frames(samples: Tensor) -> Tensor:
    """Frames after the first convolution: (f + 2 · 5 - 11) // 2 + 1 of f = 1 + samples // hop of the spectrogram."""
    return samples // HOP // 2 + 1


def _halved_bands(bands: int) -> int:
    """Either convolution halves the bands in the same way: its padding is half of its kernel."""
    return (bands - 1) // 2 + 1
