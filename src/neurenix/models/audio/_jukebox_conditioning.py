"""What Jukebox's priors are told beside the codes: who and what plays, where in the song it is, and the codes above.

Dhariwal et al., Jukebox, 2020, arXiv:2005.00341, sections 4.1 and 4.2 and appendix B.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, final

import torch
from torch import Tensor, nn

from ...errors import InputMismatchError
from ._jukebox_vqvae import UpBlock


@dataclass(frozen=True, kw_only=True)
class LabelSizes:
    """genres, artists: numbers of labels, 0 the unknown one. time_bins: steps that times are told in.

    shortest, longest: seconds of the songs that the prior was trained on.
    """

    genres: int
    artists: int
    time_bins: int
    shortest: float
    longest: float


@dataclass(frozen=True, kw_only=True)
class UpperSizes:
    """Sizes of the network over the codes of the level above; dilations are powers of 3 that begin anew after eight.

    doublings: log2 of how many codes of the prior's level one code above stands for. scaled: residuals are divided by
    the square root of their number.
    """

    doublings: int
    width: int = 1024
    depth: int = 16
    scaled: bool = False


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels of n clips. artist: (n,). genre: (n, words), -1 for no word. total_length, offset: (n,), in samples."""

    artist: Tensor
    genre: Tensor
    total_length: Tensor
    offset: Tensor


@final
class NumberEmbedding(nn.Module):
    """One vector for each number below `count`."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(count, width)

    def forward(self, numbers: Tensor) -> Tensor:
        """(…) -> (…, width)"""
        return cast(Tensor, self.emb(numbers))


@final
class TimeEmbedding(nn.Module):
    """One vector for each of `bins` equal steps between `low` and `high`."""

    def __init__(self, bins: int, width: int, low: float, high: float) -> None:
        super().__init__()
        self.emb = nn.Embedding(bins, width)
        self.low, self.high = low, high

    def forward(self, times: Tensor) -> Tensor:
        """(n, t) reals, low to high -> (n, t, width)"""
        bins = self.emb.num_embeddings
        places = (bins * ((times - self.low) / (self.high - self.low))).floor().long()
        return cast(Tensor, self.emb(places.clamp(0, bins - 1)))


@final
class LabelConditioner(nn.Module):
    """Artist and genre as the vector that a sequence begins with; for the top level, the time at each code.

    context: codes of a whole window; hop: samples to a code. timed: whether there is a time signal.
    """

    def __init__(self, sizes: LabelSizes, width: int, *, context: int, hop: int, rate: int, timed: bool) -> None:
        super().__init__()
        self.sizes, self.context, self.hop, self.rate, self.timed = sizes, context, hop, rate, timed
        self.bow_genre_emb = NumberEmbedding(sizes.genres, width)
        self.artist_emb = NumberEmbedding(sizes.artists, width)
        if timed:
            longest = sizes.longest * rate
            self.total_length_emb = TimeEmbedding(sizes.time_bins, width, sizes.shortest * rate, longest)
            self.absolute_pos_emb = TimeEmbedding(sizes.time_bins, width, 0, longest)
            self.relative_pos_emb = TimeEmbedding(sizes.time_bins, width, 0, 1)

    def check(self, name: str, values: Tensor, clips: int) -> None:
        """Raise InputMismatchError unless these are the labels of a name in Labels, for so many clips."""
        shape = (clips, -1) if name == "genre" else (clips,)
        if values.ndim != len(shape) or len(values) != clips:
            raise InputMismatchError(f"{name} has to be {shape} for these clips; got {tuple(values.shape)}.")
        low, high = {
            "artist": (0.0, self.sizes.artists - 1.0),
            "genre": (-1.0, self.sizes.genres - 1.0),
            "total_length": (self.sizes.shortest * self.rate, self.sizes.longest * self.rate),
            "offset": (0.0, self.sizes.longest * self.rate),
        }[name]
        least, most = (float(values.min()), float(values.max())) if values.numel() else (low, low)
        if not low <= least <= most <= high:
            raise InputMismatchError(f"{name} lies between {low:.0f} and {high:.0f}; got {least:.0f} to {most:.0f}.")

    def start(self, labels: Labels) -> Tensor:
        """Artist plus the sum of the genre's words: -> (n, 1, width)."""
        words = self.bow_genre_emb(labels.genre.clamp(min=0)) * (labels.genre >= 0).unsqueeze(2)
        return cast(Tensor, words.sum(1, keepdim=True) + self.artist_emb(labels.artist.unsqueeze(1)))

    def times(self, labels: Labels, frames: int) -> Tensor:
        """Length of the song, place in it in seconds, and place as a share of it, for each code: -> (n, frames, width).

        In single precision, as in training: where steps begin depends on it. A window that reaches beyond the song's
        end is squeezed into it in the share, as in training.
        """
        total, offset = labels.total_length.float().unsqueeze(1), labels.offset.float().unsqueeze(1)
        end = offset + self.context * self.hop
        share = torch.arange(frames, dtype=torch.float32, device=total.device) / self.context
        seconds = offset + (end - offset) * share
        first, last = offset / total, (end / total).clamp(0, 1)
        return cast(
            Tensor,
            self.total_length_emb(total)
            + self.absolute_pos_emb(seconds)
            + self.relative_pos_emb(first + (last - first) * share),
        )


@final
class UpperConditioner(nn.Module):
    """The codes of the level above, as one vector for each code of the prior's level: appendix B.2."""

    def __init__(self, sizes: UpperSizes, codes: int, out_width: int) -> None:
        super().__init__()
        self.x_emb = nn.Embedding(codes, out_width)
        scale = sizes.depth**-0.5 if sizes.scaled else 1.0
        self.cond = UpBlock((out_width, out_width), sizes.doublings, sizes.width, sizes.depth, 3, cycle=8, scale=scale)
        self.ln = nn.LayerNorm(out_width)

    def forward(self, upper_codes: Tensor) -> Tensor:
        """(n, t) -> (n, t · 2^doublings, width)"""
        raised: Tensor = self.cond(self.x_emb(upper_codes).transpose(1, 2))
        return cast(Tensor, self.ln(raised.transpose(1, 2)))
