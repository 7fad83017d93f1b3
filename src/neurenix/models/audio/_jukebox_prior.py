"""Jukebox's priors: autoregressive sparse transformers over the codes of one level of the VQ-VAE.

Dhariwal et al., Jukebox, 2020, arXiv:2005.00341, section 4 and appendix B; as features, Castellon et al., Codified
Audio Language Modeling Learns Useful Representations for Music Information Retrieval, ISMIR 2021, section 3: what the
middle block of the top-level prior gives, averaged over time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InputMismatchError
from ._jukebox_attention import SparseTransformer, TransformerSizes
from ._jukebox_conditioning import LabelConditioner, Labels, LabelSizes, UpperConditioner, UpperSizes
from ._jukebox_vqvae import JukeboxVQVAE, VQVAESizes, check_codes, frame_mask
from ._waveforms import waveform_of

CODES, UPPER_CODES = "codes", "upper_codes"
SAMPLE_RATE = 44_100


@dataclass(frozen=True, kw_only=True)
class PriorSizes:
    """Sizes of one prior.

    level: of the VQ-VAE. music: the transformer over the codes; its vocabulary holds the lyric symbols first where
    lyrics stand in its sequence. upper: for the levels below the top. lyrics: the encoder of lyrics, where it is a
    network of its own. tied: the codes' embeddings are also the weights of the answers, and the conditioning is added
    once more before these.
    """

    level: int
    music: TransformerSizes
    labels: LabelSizes
    upper: UpperSizes | None = None
    lyrics: TransformerSizes | None = None
    tied: bool = False
    vqvae: VQVAESizes = VQVAESizes()

    @property
    def frames(self) -> int:
        """Codes of the longest clip."""
        return self.music.context - self.music.lyrics

    @property
    def symbols(self) -> int:
        """Lyric symbols in the music's own vocabulary."""
        return self.music.vocabulary - self.vqvae.codes if self.music.lyrics else 0


@final
class PositionEmbedding(nn.Module):
    """A learned vector for each place."""

    def __init__(self, context: int, width: int) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(torch.randn(context, width) * 0.01)

    def forward(self, length: int) -> Tensor:
        """-> (length, width), of the first places"""
        return self.pos_emb[:length]


@final
class Autoregressive(nn.Module):
    """A transformer that gives at each place what it made of the symbols before.

    blocks: how many of the published ones are there. answers: a layer from features to symbols of its own.
    starts: a learned vector stands at the first place; else it is given.
    """

    def __init__(self, sizes: TransformerSizes, blocks: int, *, answers: bool = False, starts: bool = False) -> None:
        super().__init__()
        self.sizes = sizes
        self.x_emb = nn.Embedding(sizes.vocabulary, sizes.width)
        if starts:
            self.start_token = nn.Parameter(torch.randn(1, sizes.width) * 0.01)
        self.pos_emb = PositionEmbedding(sizes.context, sizes.width)
        self.transformer = SparseTransformer(sizes, blocks)
        if answers:
            self.x_out = nn.Linear(sizes.width, sizes.vocabulary, bias=False)

    def forward(
        self,
        symbols: Tensor,
        start: Tensor | None = None,
        conditioning: Tensor | None = None,
        lyrics: Tensor | None = None,
    ) -> Tensor:
        """symbols: (n, t), start: (n, 1, d), conditioning: (n, t, d), lyrics: (n, words, d) -> (n, t, d)"""
        embedded = self.x_emb(symbols)
        first = self.start_token.expand(len(symbols), 1, -1) if start is None else start
        hidden = torch.cat([first, embedded[:, :-1]], 1) + self.pos_emb(symbols.shape[1])
        if conditioning is not None:
            hidden = hidden + conditioning
        return cast(Tensor, self.transformer(hidden, lyrics))


@final
class JukeboxPrior(nn.Module):
    """Codes of a clip (or its waveform, where the VQ-VAE is there too) -> features (n, frames, width).

    Inputs are a mapping of
        codes: (n, frames) of the prior's level, or waveform: (n, samples), which the VQ-VAE makes codes of.
        upper_codes: (n, frames / 4), codes of the level above, for the priors of levels 0 and 1.
        attention_mask: (n, frames) or (n, samples), 1 where something is real.
        artist: (n,), genre: (n, words), as numbers; unknown (0) by default.
        total_length, offset: (n,), samples of the whole song, and of it before the clip. By default the shortest song
            that the prior was trained on, and 0.
        lyrics: (n, symbols) numbers of letters, for the priors with lyrics; none (0) by default.
    or the codes or the waveform alone. A feature has seen the codes before its own.

    blocks: how many of the published blocks are built; the features are those of the last one.
    answers: with the layers that tell the next code, for `logits`.
    with_vqvae: whether the VQ-VAE is a part, under the name vqvae.
    """

    def __init__(self, sizes: PriorSizes, blocks: int, *, answers: bool = False, with_vqvae: bool = False) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes.music.width
        self.vqvae = JukeboxVQVAE(sizes=sizes.vqvae) if with_vqvae else None
        if sizes.upper is not None:
            self.conditioner_blocks = nn.ModuleList([UpperConditioner(sizes.upper, sizes.vqvae.codes, width)])
        self.y_emb = LabelConditioner(
            sizes.labels,
            width,
            context=sizes.frames,
            hop=sizes.vqvae.hop(sizes.level),
            rate=SAMPLE_RATE,
            timed=sizes.upper is None,
        )
        if sizes.lyrics is not None:
            self.prime_prior = Autoregressive(sizes.lyrics, sizes.lyrics.depth, starts=True)
            self.prime_state_proj = nn.Linear(sizes.lyrics.width, width)
            self.prime_state_ln = nn.LayerNorm(width)
            if answers:
                self.prime_x_out = nn.Linear(width, sizes.lyrics.vocabulary, bias=False)
        self.prior = Autoregressive(sizes.music, blocks, answers=answers and not sizes.tied)

    @property
    def reads_waveforms(self) -> bool:
        """Whether waveforms can be made codes of, or codes have to come."""
        return self.vqvae is not None

    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """See the class."""
        return self._run(inputs)[0]

    def logits(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Of each code, given those before: (n, frames, vocabulary). Needs answers=True and all of the blocks."""
        hidden, conditioning = self._run(inputs)
        if not self.sizes.tied:
            return cast(Tensor, self.prior.x_out(hidden))
        if conditioning is not None:
            hidden = hidden + conditioning
        return functional.linear(hidden, self.prior.x_emb.weight)

    def feature_mask(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor | None:
        """(n, frames), 1 where a frame is real; None where all are."""
        if self._has_codes(inputs):
            return inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        mask = frame_mask(inputs, self._hop_of_input())
        repeats = self._hop_of_input() // self.sizes.vqvae.hop(self.sizes.level)
        return mask if mask is None else mask.repeat_interleave(repeats, 1)

    # --- parts -------------------------------------------------------------------------------------------------

    def _run(self, inputs: Tensor | Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Features (n, frames, d), and the conditioning (n, frames, d) that was added to the codes."""
        codes, upper = self._read_codes(inputs)
        given = inputs if isinstance(inputs, Mapping) else {}
        labels = self._labels(given, codes)
        start = self.y_emb.start(labels)
        if upper is not None:
            conditioning = self.conditioner_blocks[0](upper)[:, : codes.shape[1]]
        else:
            conditioning = self.y_emb.times(labels, codes.shape[1])
        if self.sizes.music.lyrics:
            return self._behind_lyrics(self._lyrics(given, codes, self.sizes.music.lyrics), codes, start, conditioning)
        lyrics = None
        if self.sizes.lyrics is not None:
            symbols = self._lyrics(given, codes, self.sizes.lyrics.context)
            lyrics = self.prime_state_ln(self.prime_state_proj(self.prime_prior(symbols)))
        return self.prior(codes, start, conditioning, lyrics), conditioning

    def _behind_lyrics(
        self, lyrics: Tensor, codes: Tensor, start: Tensor, conditioning: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One sequence of lyrics and codes; the lyrics have no conditioning, and their features are left out."""
        symbols = torch.cat([lyrics, codes + self.sizes.symbols], 1)
        padded = functional.pad(conditioning, (0, 0, lyrics.shape[1], 0))
        return self.prior(symbols, start, padded)[:, lyrics.shape[1] :], conditioning

    def _read_codes(self, inputs: Tensor | Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Codes of the prior's level, and of the level above where the prior reads them."""
        number = self.sizes.vqvae.codes
        if not self._has_codes(inputs):
            return self._encoded(inputs)
        codes = inputs[CODES] if isinstance(inputs, Mapping) else inputs
        check_codes(codes, number)
        self._check_length(codes.shape[1])
        if self.sizes.upper is None:
            return codes, None
        upper = inputs.get(UPPER_CODES) if isinstance(inputs, Mapping) else None
        check_codes(upper, number, UPPER_CODES)
        factor = 2**self.sizes.upper.doublings
        if upper is None or upper.shape[1] * factor < codes.shape[1]:
            raise InputMismatchError(
                f"{UPPER_CODES} has to reach as far as codes do: one for {factor} of the {codes.shape[1]} codes."
            )
        return codes, upper

    def _encoded(self, inputs: Tensor | Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        if self.vqvae is None:
            raise InputMismatchError(
                "this prior was loaded without the VQ-VAE, so it reads codes: give {'codes': …}, as encode() of a "
                "jukebox-vqvae makes them. To give waveforms, load it from a folder where vqvae.pth.tar lies beside "
                "it, or set model.trunk.vqvae to the trunk of a jukebox-vqvae."
            )
        waveform = waveform_of(inputs)
        waveform = functional.pad(waveform, (0, -waveform.shape[1] % self._hop_of_input()))
        self._check_length(waveform.shape[1] // self.sizes.vqvae.hop(self.sizes.level))
        codes = self.vqvae.encode(waveform, self.sizes.level)
        return codes, None if self.sizes.upper is None else self.vqvae.encode(waveform, self.sizes.level + 1)

    def _hop_of_input(self) -> int:
        """Samples that a waveform is filled up to a multiple of."""
        return self.sizes.vqvae.hop(self.sizes.level + (self.sizes.upper is not None))

    def _check_length(self, frames: int) -> None:
        if not 0 < frames <= self.sizes.frames:
            hop = self.sizes.vqvae.hop(self.sizes.level)
            raise InputMismatchError(
                f"the clip has {frames} codes, and the prior has places for 1 to {self.sizes.frames} "
                f"({self.sizes.frames * hop / SAMPLE_RATE:.1f} s); cut it into pieces."
            )

    @staticmethod
    def _has_codes(inputs: Any) -> bool:
        if isinstance(inputs, Mapping):
            return CODES in inputs
        return isinstance(inputs, Tensor) and not inputs.is_floating_point()

    def _labels(self, given: Mapping[str, Tensor], codes: Tensor) -> Labels:
        unknown = codes.new_zeros(len(codes))
        shortest = math.ceil(self.sizes.labels.shortest * SAMPLE_RATE)
        for name in ("artist", "genre", "total_length", "offset"):
            if name in given:
                self.y_emb.check(name, given[name], len(codes))
        return Labels(
            artist=given.get("artist", unknown),
            genre=given.get("genre", unknown.unsqueeze(1)),
            total_length=given.get("total_length", unknown + shortest),
            offset=given.get("offset", unknown),
        )

    def _lyrics(self, given: Mapping[str, Tensor], codes: Tensor, length: int) -> Tensor:
        """(n, length) numbers of letters, 0 in front of those that are shorter, as in training."""
        lyrics = given.get("lyrics", codes.new_zeros(len(codes), 0))
        check_codes(lyrics, self.sizes.symbols or (self.sizes.lyrics.vocabulary if self.sizes.lyrics else 0), "lyrics")
        if lyrics.shape[1] > length:
            raise InputMismatchError(f"lyrics of {lyrics.shape[1]} symbols, and the prior has places for {length}.")
        return functional.pad(lyrics, (length - lyrics.shape[1], 0))
