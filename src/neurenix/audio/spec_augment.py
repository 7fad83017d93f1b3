"""SpecAugment: Park et al., SpecAugment: A Simple Data Augmentation Method for ASR, Interspeech 2019."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn


def mask_stripes(spectrograms: Tensor, dim: int, width: int, stripes: int) -> Tensor:
    """Set `stripes` random runs along a dimension to zero, for each sample its own.

    Park et al., section 2, time and frequency masking: a run begins at t0, uniform in [0, T - t), and is t long,
    uniform in [0, width).
    spectrograms: (n, …). dim: the dimension of T, not 0. Runs may overlap.
    """
    count, size = spectrograms.shape[0], spectrograms.shape[dim]
    device = spectrograms.device
    places = torch.arange(size, device=device)
    hidden = torch.zeros(count, size, dtype=torch.bool, device=device)
    for _ in range(stripes):
        lengths = (torch.rand(count, 1, device=device) * min(width, size)).long()
        starts = (torch.rand(count, 1, device=device) * (size - lengths)).long()
        hidden = hidden | ((places >= starts) & (places < starts + lengths))
    shape = [1] * spectrograms.ndim
    shape[0], shape[dim] = count, size
    return spectrograms.masked_fill(hidden.view(shape), 0)


@final
class SpecAugment(nn.Module):
    """Hides `stripes` runs of up to `frames` frames, and as many of up to `bands` mel bands, of each sample.

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
