"""Short-time Fourier transforms of clips that have been filled up to one length."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def spectrogram(waveforms: Tensor, window: Tensor, size: int, hop: int, *, power: float) -> Tensor:
    """|short-time Fourier transform|^power of each frame. (n, samples) -> (n, frames, size // 2 + 1).

    Frame t begins at sample t · hop and is as long as the window: 1 + (samples - length) // hop frames.
    window: (length,), length <= size. size: of the transform; shorter frames are filled up with zeros at their ends.
    power: 1 for magnitudes, 2 for powers.
    """
    missing = size - len(window)
    waveforms = torch.nn.functional.pad(waveforms, (0, missing))  # the last frame's zeros
    window = torch.nn.functional.pad(window, (0, missing))
    transformed = torch.stft(waveforms, size, hop, window=window, center=False, return_complex=True)
    parts = torch.view_as_real(transformed.transpose(1, 2))
    powers = parts.square().sum(-1)
    return powers if power == 2 else powers.sqrt() if power == 1 else powers.pow(power / 2)


def mirrored(waveforms: Tensor, lengths: Tensor | None, margin: int) -> Tensor:
    """Each clip with `margin` samples more at either end, mirrored there. (n, samples) -> (n, samples + 2 · margin).

    The edge itself is not repeated. lengths: (n,) samples of each clip that are real, all above `margin`, so that a
    clip is mirrored at its own end and not at that of its batch; None where all are.
    """
    if lengths is None:
        return torch.nn.functional.pad(waveforms[:, None], (margin, margin), mode="reflect")[:, 0]
    samples = waveforms.shape[1]
    places = torch.arange(-margin, samples + margin, device=waveforms.device).abs()
    last = lengths[:, None] - 1
    places = torch.where(places > last, 2 * last - places, places).clamp(0, samples - 1)
    return waveforms.gather(1, places)


def real_lengths(mask: Tensor, shortest: int) -> Tensor:
    """(n, samples) mask -> (n,) samples of each clip that count, at least what the network needs."""
    return mask.sum(1).clamp(min=shortest)


def first_places(counts: Tensor, places: int) -> Tensor:
    """(n,) -> (n, places) bool, True for so many first ones."""
    return torch.arange(places, device=counts.device) < counts[:, None]


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast within: logarithms of powers need more than bfloat16's three digits."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
