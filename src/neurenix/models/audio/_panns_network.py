"""The networks of PANNs that read log-mel spectrograms: blocks of convolutions, then a mean and a maximum over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ...audio.mel import slaney_filters
from ...audio.spec_augment import SpecAugment
from ...audio.spectrogram import first_places, full_precision, mirrored, spectrogram
from ._waveforms import opened

BANDS = 64
_LEAST = 1e-10  # power, of which the logarithm is taken


@dataclass(frozen=True, kw_only=True)
class PannsSizes:
    """One network. widths: channels of each block. kernel: side of its convolutions. convolutions: in a block.

    halved: how many blocks, from the first on, end by halving both sides. sample_rate: in hertz. window, hop: in
    samples. highest: edge of the last mel filter, in hertz.
    """

    widths: tuple[int, ...]
    halved: int
    kernel: int = 3
    convolutions: int = 2
    sample_rate: int = 32_000
    window: int = 1024
    hop: int = 320
    highest: float = 14_000.0

    @property
    def shortest(self) -> int:
        """Samples of the shortest clip of which a frame is left at the end."""
        return (2**self.halved - 1) * self.hop


@final
class MelFilters(nn.Module):
    """Powers (n, frames, bins) -> decibels (n, frames, bands): 10 lg max(power, 1e-10).

    melW: (bins, bands), in the file too, so that features are those of the published network to the last bit.
    """

    melW: Tensor  # noqa: N815  (the name in the file)

    def __init__(self, sizes: PannsSizes) -> None:
        super().__init__()
        with torch.device("cpu"):
            filters = slaney_filters(sizes.sample_rate, sizes.window, BANDS, 50.0, sizes.highest)
        self.register_buffer("melW", filters)

    def forward(self, powers: Tensor) -> Tensor:
        """See the class."""
        return 10 * (powers @ self.melW.float()).clamp(min=_LEAST).log10()


@final
class ConvBlock(nn.Module):
    """Convolutions with norm and ReLU, then a mean over 2 x 2 places where `halves`, then dropout of 0.2.

    (n, channels, frames, bands) -> (n, width, frames // 2, bands // 2).
    """

    def __init__(self, channels: int, width: int, kernel: int, convolutions: int, halves: bool) -> None:
        super().__init__()
        self.convolutions, self.side = convolutions, 2 if halves else 1
        for number in range(1, convolutions + 1):
            layer = nn.Conv2d(channels if number == 1 else width, width, kernel, padding=kernel // 2, bias=False)
            nn.init.xavier_uniform_(layer.weight)
            self.add_module(f"conv{number}", layer)
            self.add_module(f"bn{number}", nn.BatchNorm2d(width))
        self.dropout = nn.Dropout(0.2)

    def forward(self, maps: Tensor, frames: Tensor | None) -> Tensor:
        """frames: (n,) of each sample that are real; convolutions read zeros behind, as if the maps ended there."""
        for number in range(1, self.convolutions + 1):
            norm, layer = self.get_submodule(f"bn{number}"), self.get_submodule(f"conv{number}")
            maps = norm(layer(only_real(maps, frames))).relu()
        return self.dropout(avg_pool2d(maps, self.side))


@final
class Panns(nn.Module):
    """Waveforms (n, samples) -> embeddings (n, width), none below zero.

    Kong et al., PANNs, IEEE/ACM TASLP 2020, arXiv:1912.10211. A clip's embedding is that of the clip
    alone, however far its batch is filled up behind it.
    """

    window: Tensor

    def __init__(self, sizes: PannsSizes) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes.widths[-1]
        self.register_buffer("window", torch.hann_window(sizes.window), persistent=False)
        self.logmel_extractor = MelFilters(sizes)
        self.bn0 = nn.BatchNorm2d(BANDS)
        self.spec_augmenter = SpecAugment(frames=64, bands=8, stripes=2)
        channels = 1
        for number, wider in enumerate(sizes.widths, 1):
            block = ConvBlock(channels, wider, sizes.kernel, sizes.convolutions, halves=number <= sizes.halved)
            self.add_module(f"conv_block{number}", block)
            channels = wider
        self.dropout = nn.Dropout(0.5)
        self.fc1 = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.fc1.weight)
        nn.init.zeros_(self.fc1.bias)

    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """See the class; also {"waveform": …, "attention_mask": …}."""
        waveforms, lengths = opened(inputs, self.sizes.shortest)
        decibels = self.log_mel(waveforms, lengths)
        frames = None if lengths is None else 1 + lengths // self.sizes.hop
        maps = self.bn0(decibels.transpose(1, 3)).transpose(1, 3)  # the bands are what it normalises
        if self.bn0.weight.requires_grad:  # what stands before frozen layers gives one answer for one clip
            maps = self.spec_augmenter(maps)
        for number in range(1, len(self.sizes.widths) + 1):
            maps = self.get_submodule(f"conv_block{number}")(maps, frames)
            frames = frames if frames is None or number > self.sizes.halved else frames // 2
        series = only_real(maps, frames).mean(3)  # (n, width, frames)
        return self.fc1(self.dropout(series.amax(2) + mean_of_real(series, frames))).relu()

    def feature_mask(self, inputs: Tensor | Mapping[str, Tensor]) -> None:
        """None: embeddings are of whole clips already, and no mask of tokens is left to pool by."""
        return None

    def log_mel(self, waveforms: Tensor, lengths: Tensor | None) -> Tensor:
        """Decibels of mel bands. (n, samples), (n,) samples that are real -> (n, 1, frames, 64)."""
        size, hop = self.sizes.window, self.sizes.hop
        with full_precision(waveforms.device):
            around = mirrored(waveforms.float(), lengths, size // 2)
            decibels = self.logmel_extractor(spectrogram(around, self.window.float(), size, hop, power=2))
        return decibels[:, None].to(self.bn0.weight.dtype)


def only_real(maps: Tensor, frames: Tensor | None) -> Tensor:
    """(n, channels, frames, bands) with zeros behind the frames that are real, (n,); as they are where all are."""
    if frames is None:
        return maps
    return maps * first_places(frames, maps.shape[2])[:, None, :, None].to(maps.dtype)


def mean_of_real(series: Tensor, frames: Tensor | None) -> Tensor:
    """(n, width, frames), zero behind the frames that are real -> their mean (n, width)."""
    return series.mean(2) if frames is None else series.sum(2) / frames[:, None].to(series.dtype)
