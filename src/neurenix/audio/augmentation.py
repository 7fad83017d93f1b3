"""Random changes of sounds for training: of waveforms, and of spectrograms (SpecAugment)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

AUGMENTATIONS: Mapping[str, str] = {
    "none": "the clip from its start, as in evaluation",
    "light": "another loudness, by -6 to +6 dB",
    "standard": "light, a part from anywhere in a clip that is too long, and a shift in time by up to a tenth of it",
}


def random_gain(clip: Tensor, decibels: float = 6.0) -> Tensor:
    """A clip (samples,) times 10^(g / 20), g uniform in [-decibels, decibels]; no louder than full scale or itself."""
    gain = 10 ** (float(torch.empty(()).uniform_(-decibels, decibels)) / 20)
    peak = float(clip.abs().max())
    return clip * min(gain, max(1.0, 1 / peak) if peak > 0 else 1.0)


def random_shift(clip: Tensor, share: float = 0.1) -> Tensor:
    """A clip (samples,) turned in time by up to `share` of its length; what leaves at one end enters at the other."""
    most = int(share * len(clip))
    return clip.roll(int(torch.randint(-most, most + 1, ())))


def random_part(clip: Tensor, length: int) -> Tensor:
    """`length` samples from anywhere in a clip (samples,), or all of a shorter one."""
    start = int(torch.randint(0, max(0, len(clip) - length) + 1, ()))
    return clip[start : start + length]


def mask_stripes(spectrograms: Tensor, dim: int, width: int, stripes: int) -> Tensor:
    """Set `stripes` random runs along a dimension to zero, for each sample its own.

    Park et al., SpecAugment, Interspeech 2019, section 2 (time and frequency masking): a run begins at t0, uniform in
    [0, T - t), and is t long, uniform in [0, width).
    spectrograms: (n, …). dim: the dimension of T, not 0. Runs may overlap.
    """
    count, size = spectrograms.shape[0], spectrograms.shape[dim]
    places = torch.arange(size, device=spectrograms.device)
    hidden = torch.zeros(count, size, dtype=torch.bool, device=spectrograms.device)
    for _ in range(stripes):
        lengths = torch.randint(0, max(1, min(width, size)), (count, 1), device=spectrograms.device)
        starts = (torch.rand(count, 1, device=spectrograms.device) * (size - lengths)).long()
        hidden |= (places >= starts) & (places < starts + lengths)
    shape = [
        count if axis == 0 else size if axis == dim % spectrograms.ndim else 1 for axis in range(spectrograms.ndim)
    ]
    return spectrograms.masked_fill(hidden.view(shape), 0)


@final
class SpecAugment(nn.Module):
    """In training: hides `stripes` runs of up to `frames` frames and as many of up to `bands` mel bands of each sample.

    (n, channels, frames, bands) -> the same shape; unchanged in evaluation. Time warping, which the paper finds to
    matter least (section 5), is left out.
    """

    def __init__(self, frames: int = 64, bands: int = 8, stripes: int = 2) -> None:
        super().__init__()
        self.frames, self.bands, self.stripes = frames, bands, stripes

    def forward(self, spectrograms: Tensor) -> Tensor:
        """See the class."""
        if not self.training:
            return spectrograms
        in_time = mask_stripes(spectrograms, 2, self.frames, self.stripes)
        return mask_stripes(in_time, 3, self.bands, self.stripes)

    def extra_repr(self) -> str:
        """What print(model) shows of it."""
        return f"frames={self.frames}, bands={self.bands}, stripes={self.stripes}"
