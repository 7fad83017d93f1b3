"""Deep Speech 2: Amodei et al., End-to-End Speech Recognition in English and Mandarin, ICML 2016.

The networks of deepspeech.pytorch: its files of version 2 (`.pth`) and of version 3 (Lightning's `.ckpt`).
"""

from __future__ import annotations

from collections.abc import Sequence

from ...audio import Alphabet, AudioInput
from ...errors import WeightsMismatchError
from .._pretrained_model import PretrainedModel, new_model
from .._records import ARCHITECTURES, Architecture, BuildOptions, Parts, StateDict, UrlSource, Weights
from ._ctc_head import CTCHead
from ._deepspeech_files import read_deepspeech, sizes_of
from ._deepspeech_network import SAMPLE_RATE, SHORTEST, DeepSpeech2, SoundFrames
from ._deepspeech_network import DeepSpeechSizes as DeepSpeechSizes

NAME = "deepspeech2"
PAPER = "Amodei et al., Deep Speech 2: End-to-End Speech Recognition, ICML 2016, arXiv:1512.02595"
RELEASES = "https://github.com/SeanNaren/deepspeech.pytorch/releases/download/"
SYMBOLS = tuple("_'ABCDEFGHIJKLMNOPQRSTUVWXYZ ")
NORM, HEAD = "fc.0.module.0", "fc.0.module.1"
SOUNDS = AudioInput(sample_rate=SAMPLE_RATE, shortest=SHORTEST)
FILES = {
    "librispeech-v3": "V3.0/librispeech_pretrained_v3.ckpt",
    "ted-v3": "V3.0/ted_pretrained_v3.ckpt",
    "an4-v3": "V3.0/an4_pretrained_v3.ckpt",
    "librispeech-v2": "v2.0/librispeech_pretrained_v2.pth",
}


def stages(sizes: DeepSpeechSizes) -> tuple[str, ...]:
    """Names of the trunk's parts; those that read one way look ahead before the last norm, which `fc` begins with."""
    ahead = () if sizes.bidirectional else ("lookahead",)
    return ("conv", *(f"rnns.{layer}" for layer in range(sizes.layers)), *ahead, NORM)


def build(options: BuildOptions) -> Parts:
    """The network with random weights, of the sizes that the file's tensors have."""
    sizes = sizes_of(options.state) if options.state else DeepSpeechSizes()
    head = _head(sizes, _alphabet(options.state or {})) if options.num_classes else None
    return _parts(sizes, head)


def new_deepspeech2(
    sizes: DeepSpeechSizes, symbols: Sequence[str] = SYMBOLS, blank: int = 0, space: str = " "
) -> PretrainedModel:
    """A network of one's own sizes with random weights that writes in one's own symbols; see neurenix.audio.Alphabet.

    Raises ConfigurationError for symbols that cannot be.
    """
    head = _head(sizes, Alphabet(symbols=tuple(symbols), blank=blank, space=space))
    return new_model(ARCHITECTURES[NAME], _parts(sizes, head))


def convert(state: StateDict) -> StateDict:
    """The published names to ours: the last layer is the head's, all else the trunk's."""
    return {_qualified(name): tensor for name, tensor in state.items()}


def _qualified(name: str) -> str:
    if name.startswith(("trunk.", "head.")):
        return name
    return f"head.{name}" if name.startswith(f"{HEAD}.") else f"trunk.{name}"


def _parts(sizes: DeepSpeechSizes, head: CTCHead | None) -> Parts:
    return Parts(
        trunk=DeepSpeech2(sizes), head=head, feature_size=sizes.hidden, channels_last=True, stages=stages(sizes)
    )


def _head(sizes: DeepSpeechSizes, alphabet: Alphabet) -> CTCHead:
    return CTCHead(sizes.hidden, alphabet, name=HEAD, bias=False, frames=SoundFrames())


def _alphabet(state: StateDict) -> Alphabet:
    """The symbols saved with the weights; the published ones where the file says nothing and they are as many."""
    if "head.vocabulary" in state:
        return Alphabet.from_tensor(state["head.vocabulary"])
    weight = state.get(f"head.{HEAD}.weight")
    if weight is not None and weight.shape[0] != len(SYMBOLS):
        raise WeightsMismatchError(
            f"the head in the file tells {weight.shape[0]} symbols apart and the file does not say which; load with "
            "include_top=False, or save it with its list of labels, as deepspeech.pytorch does."
        )
    return Alphabet(symbols=SYMBOLS)


ARCHITECTURES.add(
    NAME,
    Architecture(
        name=NAME,
        domain="audio",
        tasks=("transcription", "classification", "features"),
        build=build,
        input=SOUNDS,
        stages=stages(DeepSpeechSizes()),
        head_name="",
        pooling="avg",
        paper=PAPER,
        licence="mit",
        weights={
            name: Weights(
                name=name,
                source=UrlSource(RELEASES + file, None),
                licence="mit",
                paper=PAPER,
                input=SOUNDS,
                convert=convert,
                read=read_deepspeech,
            )
            for name, file in FILES.items()
        },
        default_weights="librispeech-v3",
        outputs=len(SYMBOLS),
        # behind a recurrent layer adapters stand as behind a feed-forward part
        roles={"stem": "conv.seq_module.0", "convolution": "conv.seq_module.[03]", "mlp.out": "rnns.?"},
    ),
    "deepspeech",
)
