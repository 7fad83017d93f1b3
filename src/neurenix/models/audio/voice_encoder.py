"""Voice encoder: Wan et al., Generalized End-to-End Loss for Speaker Verification, ICASSP 2018, arXiv:1710.10467.

`model.embed(inputs)` of a sound is a vector of 256 values and length 1 that says who speaks: the scalar product of two
is the cosine of the voices' angle. Sounds below -30 dB of full scale are made as loud as that, as in Resemblyzer; long
silences are not cut out, as Resemblyzer does with webrtcvad before it embeds, so cut them out of sounds that have any.
"""

from __future__ import annotations

from pathlib import Path

from ...audio import AudioInput
from .._records import ARCHITECTURES, Architecture, BuildOptions, PackageSource, Parts, StateDict, Weights
from ..sources import read_state_dict
from ._voice_encoder_network import EMBEDDING, SAMPLE_RATE, SHORTEST, VoiceEncoder

PAPER = "Wan et al., Generalized End-to-End Loss for Speaker Verification, ICASSP 2018, arXiv:1710.10467"
LICENCE = "apache-2.0"
EXPECTED = AudioInput(sample_rate=SAMPLE_RATE, shortest=SHORTEST)
# w and b of equation 5, by which the training loss scales cosines; no vector depends on them
OF_THE_LOSS = ("similarity_weight", "similarity_bias")


def build_voice_encoder(options: BuildOptions) -> Parts:
    """The network, which was published without a head."""
    return Parts(trunk=VoiceEncoder(), head=None, feature_size=EMBEDDING, channels_last=True)


def read_voice_encoder(path: Path) -> StateDict:
    """A published file without what belongs to its training: the optimizer's state and the two numbers of the loss."""
    state, _ = read_state_dict(path)
    return {name: tensor for name, tensor in state.items() if name not in OF_THE_LOSS}


ARCHITECTURES.add(
    "voice-encoder",
    Architecture(
        name="voice-encoder",
        domain="audio",
        tasks=("features",),
        build=build_voice_encoder,
        input=EXPECTED,
        stages=("lstm", "linear"),
        head_name="classifier",
        pooling="avg",
        paper=PAPER,
        licence=LICENCE,
        weights={
            "resemblyzer": Weights(
                name="resemblyzer",
                source=PackageSource(distribution="Resemblyzer", package="resemblyzer", file="pretrained.pt"),
                licence=LICENCE,
                paper=PAPER,
                input=EXPECTED,
                sha256="39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
                read=read_voice_encoder,
            )
        },
        default_weights="resemblyzer",
        outputs=0,
        roles={"stem": "lstm"},  # there are no blocks with residual connections, so no place for adapters or prompts
    ),
    "resemblyzer",
    "ge2e",
)
