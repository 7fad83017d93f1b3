"""Jukebox's VQ-VAE: three autoencoders of raw audio, each with a codebook of its own.

Dhariwal et al., Jukebox: A Generative Model for Music, 2020, arXiv:2005.00341, section 3. The levels are independent:
level 0 makes one code of 8 samples, level 1 of 32, level 2 of 128, at 44.1 kHz.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigurationError, InputMismatchError
from ._waveforms import waveform_of

WAVEFORM, MASK = "waveform", "attention_mask"


@dataclass(frozen=True, kw_only=True)
class VQVAESizes:
    """Sizes of the three levels, level 0 first; the paper's are the defaults (appendix B.1).

    halvings: times that each block of a level halves the number of steps; a level has the blocks of those below too.
    widths, depths: channels, and residual convolutions between two halvings.
    codes, code_width: entries of a codebook, and their length d.
    """

    halvings: tuple[int, ...] = (3, 2, 2)
    widths: tuple[int, ...] = (64, 32, 32)
    depths: tuple[int, ...] = (8, 4, 4)
    dilation_growth: int = 3
    codes: int = 2048
    code_width: int = 64

    def hop(self, level: int) -> int:
        """Samples to a code of this level."""
        return int(2 ** sum(self.halvings[: level + 1]))


def codebook_loss(latents: Tensor, quantised: Tensor) -> Tensor:
    """How far the codebook's entries are from the latents that they stand for; moves the entries alone.

    Dhariwal et al. 2020, section 3.1: L_codebook = 1/S Σ_s ‖sg[h_s] - e_{z_s}‖². latents, quantised: (…, d), h and e
    -> (), in squared feature units. In the paper moving averages take this loss's place; codebooks of published
    weights stay as they are.
    """
    return (latents.detach() - quantised).square().sum(-1).mean()


def commitment_loss(latents: Tensor, quantised: Tensor) -> Tensor:
    """How far latents are from their codebook entries; moves the encoder alone.

    Dhariwal et al. 2020, section 3.1: L_commit = 1/S Σ_s ‖h_s - sg[e_{z_s}]‖². latents, quantised: (…, d) -> ().
    The paper weighs it by β = 0.02.
    """
    return (latents - quantised.detach()).square().sum(-1).mean()


def straight_through(latents: Tensor, quantised: Tensor) -> Tensor:
    """The quantised latents, with the gradient of the latents (van den Oord et al., NeurIPS 2017, section 3.2)."""
    return latents + (quantised - latents).detach()


@final
class ResidualConvolution(nn.Module):
    """x + s · C1(relu(C3(relu(x)))): C3 a dilated convolution over three steps, C1 over one. (n, c, t) -> the same."""

    def __init__(self, width: int, dilation: int, scale: float = 1.0) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation),
            nn.ReLU(),
            nn.Conv1d(width, width, 1),
        )
        self.scale = scale

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, c, t) -> (n, c, t)"""
        outputs: Tensor = hidden + self.scale * self.model(hidden)
        return outputs


@final
class ResidualStack(nn.Module):
    """Residual convolutions whose dilation grows: 1, g, g², … (n, c, t) -> the same.

    cycle: dilations begin anew after so many; None for never. falling: the largest dilation comes first.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        growth: int,
        *,
        cycle: int | None = None,
        falling: bool = False,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        dilations = [growth ** (place % (cycle or depth)) for place in range(depth)]
        if falling:
            dilations.reverse()
        self.model = nn.Sequential(*(ResidualConvolution(width, dilation, scale) for dilation in dilations))

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, c, t) -> (n, c, t)"""
        return cast(Tensor, self.model(hidden))


@final
class DownBlock(nn.Module):
    """Halves the steps a number of times. (n, in, t) -> (n, out, t / 2^halvings)"""

    def __init__(self, sizes: VQVAESizes, level: int, halvings: int, in_channels: int) -> None:
        super().__init__()
        width, depth = sizes.widths[level], sizes.depths[level]
        layers: list[nn.Module] = [
            nn.Sequential(
                nn.Conv1d(width if place else in_channels, width, 4, stride=2, padding=1),
                ResidualStack(width, depth, sizes.dilation_growth),
            )
            for place in range(halvings)
        ]
        self.model = nn.Sequential(*layers, nn.Conv1d(width, sizes.code_width, 3, padding=1))

    def forward(self, hidden: Tensor) -> Tensor:
        """See the class."""
        return cast(Tensor, self.model(hidden))


@final
class UpBlock(nn.Module):
    """Doubles the steps a number of times. (n, in, t) -> (n, out, t · 2^doublings)

    The decoders' blocks, and the network that makes a prior's conditioning from the codes above it (appendix B.2).
    """

    def __init__(
        self,
        channels: tuple[int, int],
        doublings: int,
        width: int,
        depth: int,
        growth: int,
        *,
        cycle: int | None = None,
        falling: bool = False,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        in_channels, out_channels = channels
        widths = [width] * doublings + [out_channels]
        layers = [
            nn.Sequential(
                ResidualStack(width, depth, growth, cycle=cycle, falling=falling, scale=scale),
                nn.ConvTranspose1d(width, widths[place + 1], 4, stride=2, padding=1),
            )
            for place in range(doublings)
        ]
        self.model = nn.Sequential(nn.Conv1d(in_channels, width, 3, padding=1), *layers)

    def forward(self, hidden: Tensor) -> Tensor:
        """See the class."""
        return cast(Tensor, self.model(hidden))


@final
class Encoder(nn.Module):
    """A level's way from samples to latents. (n, 1, samples) -> (n, d, samples / hop)"""

    def __init__(self, sizes: VQVAESizes, level: int) -> None:
        super().__init__()
        self.level_blocks = nn.ModuleList(
            DownBlock(sizes, level, halvings, sizes.code_width if below else 1)
            for below, halvings in enumerate(sizes.halvings[: level + 1])
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """See the class."""
        for block in self.level_blocks:
            hidden = block(hidden)
        return hidden


@final
class Decoder(nn.Module):
    """A level's way from codebook entries to samples. (n, d, t) -> (n, 1, t · hop)"""

    def __init__(self, sizes: VQVAESizes, level: int) -> None:
        super().__init__()
        channels = (sizes.code_width, sizes.code_width)
        width, depth, growth = sizes.widths[level], sizes.depths[level], sizes.dilation_growth
        self.level_blocks = nn.ModuleList(
            UpBlock(channels, doublings, width, depth, growth, falling=True)
            for doublings in sizes.halvings[: level + 1]
        )
        self.out = nn.Conv1d(sizes.code_width, 1, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """See the class."""
        for block in reversed(self.level_blocks):  # the block of the coarsest steps comes first
            hidden = block(hidden)
        return cast(Tensor, self.out(hidden))


@final
class Codebook(nn.Module):
    """k: (codes, d), a buffer. Random until a file fills it."""

    k: Tensor

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("k", torch.randn(codes, width) / width**0.5)

    def forward(self, latents: Tensor) -> Tensor:
        """Number of the nearest entry of each latent: (…, d) -> (…), int64."""
        flat = latents.flatten(0, -2)
        distances = self.k.square().sum(1) - 2 * flat @ self.k.T  # ‖h‖² is the same for every entry
        return distances.argmin(1).view(latents.shape[:-1])

    def entries(self, codes: Tensor) -> Tensor:
        """(…) -> (…, d)"""
        return functional.embedding(codes, self.k)


@final
class Bottleneck(nn.Module):
    """The codebooks, level 0 first."""

    def __init__(self, sizes: VQVAESizes) -> None:
        super().__init__()
        self.level_blocks = nn.ModuleList(Codebook(sizes.codes, sizes.code_width) for _ in sizes.halvings)


@final
class JukeboxVQVAE(nn.Module):
    """Waveforms at 44.1 kHz, mono, in [-1, 1] -> latents of one level before quantisation, (n, frames, 64).

    level: whose latents forward gives; encode and decode take any. A clip is filled up with silence to whole frames.
    In a batch of clips of different lengths, a clip gets the frames that it gets alone, but near its end, where
    convolutions reach into the silence behind it: for 1.0, 0.06 and 0.24 s on levels 0, 1 and 2.
    """

    def __init__(self, level: Literal[0, 1, 2] = 2, sizes: VQVAESizes | None = None) -> None:
        super().__init__()
        self.sizes = sizes or VQVAESizes()
        self.level = level
        levels = range(len(self.sizes.halvings))
        self.encoders = nn.ModuleList(Encoder(self.sizes, each) for each in levels)
        self.bottleneck = Bottleneck(self.sizes)
        self.decoders = nn.ModuleList(Decoder(self.sizes, each) for each in levels)

    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """`waveform` (n, samples) with its `attention_mask`, or the waveform alone -> (n, frames, d)."""
        return self.latents(waveform_of(inputs), self.level)

    def feature_mask(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor | None:
        """(n, frames), 1 where a frame holds a sample that is real; None where all are."""
        return frame_mask(inputs, self.sizes.hop(self.level))

    def latents(self, waveform: Tensor, level: int) -> Tensor:
        """(n, samples) -> (n, frames, d)"""
        filled = functional.pad(waveform, (0, -waveform.shape[1] % self.sizes.hop(level)))
        encoder = self.encoders[self._known(level)]
        return cast(Tensor, encoder(filled.unsqueeze(1))).transpose(1, 2)

    @torch.no_grad()
    def encode(self, inputs: Tensor | Mapping[str, Tensor], level: int | None = None) -> Tensor:
        """Codes of one level, None for the trunk's own: (n, samples) -> (n, frames), int64."""
        level = self.level if level is None else level
        return cast(Tensor, self._codebook(level)(self.latents(waveform_of(inputs), level)))

    @torch.no_grad()
    def decode(self, codes: Tensor, level: int | None = None) -> Tensor:
        """The waveform that codes stand for: (n, frames) -> (n, frames · hop)."""
        level = self.level if level is None else level
        check_codes(codes, self.sizes.codes)
        entries = self._codebook(level).entries(codes)
        return cast(Tensor, self.decoders[level](entries.transpose(1, 2))).squeeze(1)

    def _codebook(self, level: int) -> Codebook:
        return cast(Codebook, self.bottleneck.level_blocks[self._known(level)])

    def _known(self, level: int) -> int:
        if level not in range(len(self.sizes.halvings)):
            raise ConfigurationError(
                f"level={level!r}; the VQ-VAE has levels 0 (the finest) to {len(self.sizes.halvings) - 1}."
            )
        return level


def frame_mask(inputs: Tensor | Mapping[str, Tensor], hop: int) -> Tensor | None:
    """(n, samples) of 0 and 1 -> (n, frames), 1 where any of a frame's samples is; None without a mask."""
    mask = inputs.get(MASK) if isinstance(inputs, Mapping) else None
    if mask is None:
        return None
    filled = functional.pad(mask, (0, -mask.shape[1] % hop))
    return filled.unflatten(1, (-1, hop)).amax(2)


def check_codes(codes: Any, number: int, name: str = "codes") -> None:
    """Raise InputMismatchError unless these are whole numbers (n, t) below `number`."""
    whole = isinstance(codes, Tensor) and not codes.is_floating_point() and not codes.is_complex()
    if not whole or codes.ndim != 2:
        shown = f"{tuple(codes.shape)} {codes.dtype}" if isinstance(codes, Tensor) else type(codes).__name__
        raise InputMismatchError(f"{name} are whole numbers, (n, how many); encode() gives codes. Got {shown}.")
    if codes.numel() and not codes.is_meta and not 0 <= int(codes.min()) <= int(codes.max()) < number:
        raise InputMismatchError(
            f"{name} lie between 0 and {number - 1}; got {int(codes.min())} to {int(codes.max())}."
        )
