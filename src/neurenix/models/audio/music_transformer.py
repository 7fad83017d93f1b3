"""Music Transformer: Huang et al., Music Transformer: Generating Music with Long-Term Structure, ICLR 2019."""

from __future__ import annotations

from ...audio import MidiInput
from .._pretrained_model import PretrainedModel, new_model
from .._records import ARCHITECTURES, Architecture, BuildOptions, Parts, UrlSource, Weights
from ._music_files import convert, count_events, read, sizes_in
from ._music_generation import generate as generate
from ._music_head import NextEventHead as NextEventHead
from ._music_network import MusicTransformer as MusicTransformer
from ._music_network import MusicTransformerSizes as MusicTransformerSizes

PAPER = "Huang et al., Music Transformer: Generating Music with Long-Term Structure, ICLR 2019, arXiv:1809.04281"
PUBLISHED = MusicTransformerSizes()
_MAGENTA = "https://storage.googleapis.com/magentadata/models/music_transformer/checkpoints/unconditional_model_16.ckpt"


def build(options: BuildOptions) -> Parts:
    """The network of a file's sizes, or with random weights of the published ones."""
    return _parts(PUBLISHED if options.state is None else sizes_in(options.state, PUBLISHED), options.num_classes > 0)


def new_music_transformer(sizes: MusicTransformerSizes) -> PretrainedModel:
    """A network of one's own sizes with random weights, to be trained on one's own music.

    Relative attention is to be had only in this way and from files of MusicTransformer-Pytorch: Magenta's public
    checkpoint was trained without. The vocabulary is the one with so many events; see neurenix.audio.

    Raises ConfigurationError where there is none of that size.
    """
    return new_model(ARCHITECTURES["music-transformer"], _parts(sizes, True))


def _parts(sizes: MusicTransformerSizes, with_head: bool) -> Parts:
    trunk = MusicTransformer(sizes)
    embedding = trunk.embedding if sizes.from_tensor2tensor else None
    return Parts(
        trunk=trunk,
        head=NextEventHead(sizes.vocabulary_size, sizes.width, embedding) if with_head else None,
        feature_size=sizes.width,
        channels_last=True,
        prefix_tokens=1 if sizes.from_tensor2tensor else 0,  # the place before the first event
        stages=sizes.stages,
    )


ARCHITECTURES.add(
    "music-transformer",
    Architecture(
        name="music-transformer",
        domain="audio",
        tasks=("generation", "features"),
        build=build,
        input=MidiInput(),
        stages=PUBLISHED.stages,
        head_name="head",
        outputs=PUBLISHED.vocabulary_size,
        count_outputs=count_events,
        pooling="avg",
        paper=PAPER,
        licence="apache-2.0",
        weights={
            "magenta-unconditional-16": Weights(
                name="magenta-unconditional-16",
                # No hash is published; each of the file's tensors has a checksum, which is compared.
                source=UrlSource(f"{_MAGENTA}.index", None, beside=(f"{_MAGENTA}.data-00000-of-00001",)),
                licence="none stated for the weights; Magenta published them with its code, which is under apache-2.0",
                paper=PAPER,
                input=MidiInput(),
                convert=convert,
                read=read,
            )
        },
        default_weights="magenta-unconditional-16",
        roles={
            "stem": "embedding",
            "attention.query": "layers.*.self_attention.q",
            "attention.key": "layers.*.self_attention.k",
            "attention.value": "layers.*.self_attention.v",
            "attention.output": "layers.*.self_attention.output_transform",
            "mlp": "layers.*.ffn",
            "mlp.in": "layers.*.ffn.conv1",
            "mlp.out": "layers.*.ffn.conv2",
        },
    ),
    "magenta/music-transformer",
)
