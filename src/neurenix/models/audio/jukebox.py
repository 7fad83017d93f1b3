"""Jukebox: Dhariwal et al., Jukebox: A Generative Model for Music, 2020, arXiv:2005.00341.

`jukebox-vqvae` gives the latents of the VQ-VAE's top level, `-level-0` and `-level-1` those of the finer ones. The
priors give what their middle block makes of the codes (Castellon et al., ISMIR 2021): of a published file, the lower
half of the blocks is read. A prior reads waveforms where vqvae.pth.tar lies beside its file, as it does after a
download, else codes, which `model.trunk.encode` of a `jukebox-vqvae` makes.

Code and weights of the authors are for noncommercial use only, and so is what is made with the weights.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

from ...audio import AudioInput
from .._records import ARCHITECTURES, Architecture, BuildOptions, Parts, UrlSource, Weights
from ._jukebox_attention import TransformerSizes
from ._jukebox_conditioning import LabelSizes, UpperSizes
from ._jukebox_files import convert_prior, read_prior, sizes_in
from ._jukebox_prior import SAMPLE_RATE, JukeboxPrior, PriorSizes
from ._jukebox_vqvae import JukeboxVQVAE, VQVAESizes

PAPER = "Dhariwal et al., Jukebox: A Generative Model for Music, 2020, arXiv:2005.00341"
LICENCE = "OpenAI Noncommercial Use License"
VQVAE_FILE = "5b/vqvae.pth.tar"
ADDRESS = "https://openaipublic.azureedge.net/jukebox/models/"
EXPECTED = AudioInput(sample_rate=SAMPLE_RATE, shortest=SAMPLE_RATE // 10)

Level = Literal[0, 1, 2]


def _music(
    width: int, depth: int, heads: int, order: int, rows: int, frames: int, symbols: int = 0, lyrics: int = 0
) -> TransformerSizes:
    return TransformerSizes(
        vocabulary=VQVAESizes().codes + symbols,
        context=frames + lyrics,
        width=width,
        depth=depth,
        heads=heads,
        state=width // 4,
        inner=width,
        order=order,
        rows=rows,
        lyrics=lyrics,
    )


def _labels(shortest: float) -> LabelSizes:
    return LabelSizes(genres=120, artists=4111, time_bins=128, shortest=shortest, longest=600.0)


_UPSAMPLER = _music(width=1920, depth=72, heads=1, order=2, rows=128, frames=8192)

PRIORS: dict[str, PriorSizes] = {
    "jukebox-5b": PriorSizes(
        level=2,
        music=_music(width=4800, depth=72, heads=8, order=2, rows=128, frames=8192),
        labels=_labels(60.0),
    ),
    "jukebox-5b-lyrics": PriorSizes(
        level=2,
        music=_music(width=4800, depth=79, heads=8, order=10, rows=128, frames=8192),
        labels=_labels(23.8),
        lyrics=TransformerSizes(
            vocabulary=80, context=512, width=1280, depth=18, heads=4, state=320, inner=1280, order=2, rows=32
        ),
    ),
    "jukebox-1b-lyrics": PriorSizes(
        level=2,
        music=_music(width=2048, depth=72, heads=2, order=12, rows=64, frames=6144, symbols=79, lyrics=384),
        labels=LabelSizes(genres=604, artists=7898, time_bins=64, shortest=17.84, longest=600.0),
        tied=True,
    ),
    "jukebox-upsampler-level-0": PriorSizes(
        level=0, music=_UPSAMPLER, labels=_labels(0.0), upper=UpperSizes(doublings=2), tied=True
    ),
    "jukebox-upsampler-level-1": PriorSizes(
        level=1, music=_UPSAMPLER, labels=_labels(0.0), upper=UpperSizes(doublings=2, scaled=True), tied=True
    ),
}
FILES = {
    "jukebox-5b": "5b/prior_level_2.pth.tar",
    "jukebox-5b-lyrics": "5b_lyrics/prior_level_2.pth.tar",
    "jukebox-1b-lyrics": "1b_lyrics/prior_level_2.pth.tar",
    "jukebox-upsampler-level-0": "5b/prior_level_0.pth.tar",
    "jukebox-upsampler-level-1": "5b/prior_level_1.pth.tar",
}
VQVAE_STAGES = (
    *(f"encoders.{level}" for level in range(3)),
    "bottleneck",
    *(f"decoders.{level}" for level in range(3)),
)
PRIOR_ROLES = {
    "stem": "prior.x_emb",
    "attention.qkv": "prior.transformer._attn_mods.*.attn.c_attn",
    "attention.output": "prior.transformer._attn_mods.*.attn.c_proj",
    "mlp": "prior.transformer._attn_mods.*.mlp",
    "mlp.in": "prior.transformer._attn_mods.*.mlp.c_fc",
    "mlp.out": "prior.transformer._attn_mods.*.mlp.c_proj",
}


def build_vqvae(options: BuildOptions, *, level: Level) -> Parts:
    """The VQ-VAE, whose features are those of one level."""
    trunk = JukeboxVQVAE(level)
    return Parts(trunk=trunk, head=None, feature_size=trunk.sizes.code_width, channels_last=True)


def build_prior(options: BuildOptions, *, published: PriorSizes) -> Parts:
    """The lower half of a prior's blocks, with the VQ-VAE unless the file is without it; its sizes are the file's."""
    sizes, blocks, with_vqvae = published, published.music.depth // 2, True
    if options.state is not None:
        sizes, found = sizes_in(options.state, published)
        blocks = min(blocks, found)
        with_vqvae = any(name.removeprefix("trunk.").startswith("vqvae.") for name in options.state)
    return Parts(
        trunk=JukeboxPrior(sizes, blocks, with_vqvae=with_vqvae),
        head=None,
        feature_size=sizes.music.width,
        channels_last=True,
        stages=prior_stages(sizes, blocks, with_vqvae),
    )


def prior_stages(sizes: PriorSizes, blocks: int, with_vqvae: bool = True) -> tuple[str, ...]:
    """Names of a prior's parts from input to output."""
    lyrics = ("prime_prior", "prime_state_proj", "prime_state_ln") if sizes.lyrics else ()
    return (
        *(("vqvae",) if with_vqvae else ()),
        *(("conditioner_blocks",) if sizes.upper else ()),
        "y_emb",
        *lyrics,
        "prior.x_emb",
        "prior.pos_emb",
        *(f"prior.transformer._attn_mods.{block}" for block in range(blocks)),
    )


def _vqvae_roles(level: Level) -> dict[str, str]:
    """Of the encoder that is read; a residual convolution is its feed-forward part."""
    residual = f"encoders.{level}.level_blocks.*.model.?.1.model.?.model"
    return {
        "stem": f"encoders.{level}.level_blocks.0.model.0.0",
        "convolution": f"{residual}.[13]",
        "mlp": residual,
        "mlp.in": f"{residual}.1",
        "mlp.out": f"{residual}.3",
    }


def _weights(file: str) -> Weights:
    """The record of one file; the priors' bring the VQ-VAE, which makes codes of waveforms."""
    return Weights(
        name="openai",
        source=UrlSource(ADDRESS + file, None, beside=() if file == VQVAE_FILE else (ADDRESS + VQVAE_FILE,)),
        licence=LICENCE,
        paper=PAPER,
        input=EXPECTED,
        commercial_use=False,
    )


for _level in (0, 1, 2):
    _name = "jukebox-vqvae" if _level == 2 else f"jukebox-vqvae-level-{_level}"
    ARCHITECTURES.add(
        _name,
        Architecture(
            name=_name,
            domain="audio",
            tasks=("features",),
            build=partial(build_vqvae, level=_level),
            input=EXPECTED,
            stages=VQVAE_STAGES,
            head_name="head",
            pooling="avg",
            paper=PAPER,
            licence=LICENCE,
            weights={"openai": _weights(VQVAE_FILE)},
            default_weights="openai",
            outputs=0,
            roles=_vqvae_roles(_level),
        ),
        *(("jukebox", "jukebox-vqvae-level-2") if _level == 2 else ()),
    )

for _name, _sizes in PRIORS.items():
    ARCHITECTURES.add(
        _name,
        Architecture(
            name=_name,
            domain="audio",
            tasks=("features",),
            build=partial(build_prior, published=_sizes),
            input=EXPECTED,
            stages=prior_stages(_sizes, _sizes.music.depth // 2),
            head_name="head",
            pooling="avg",
            paper=PAPER,
            licence=LICENCE,
            weights={"openai": replace(_weights(FILES[_name]), convert=convert_prior, read=read_prior)},
            default_weights="openai",
            outputs=0,
            roles=PRIOR_ROLES,
        ),
    )
