"""PANNs: Kong et al., PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition, TASLP 2020.

The published head tells 527 classes of AudioSet apart, of which several may be heard at once: its logits are one for
each class by itself, and the sigmoid of a logit is the class's probability.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import Tensor, nn

from ...audio import AudioInput
from ...errors import UnsafeFileError
from .._records import ARCHITECTURES, Architecture, BuildOptions, Parts, StateDict, UrlSource, Weights
from ..sources import read_state_dict
from ._panns_network import Panns, PannsSizes
from ._torch_arrays import load_with_arrays

PAPER = "Kong et al., PANNs: Large-Scale Pretrained Audio Neural Networks, IEEE/ACM TASLP 2020, arXiv:1912.10211"
LICENCE = "cc-by-4.0"
ADDRESS = "https://zenodo.org/record/3987831/files/"
CLASSES = 527
TRANSFORM = "spectrogram_extractor."  # the Fourier transform as convolutions, which torch.stft does here
MIRROR = "backbone."  # in front of all names in a copy on the hub

CNN14 = PannsSizes(widths=(64, 128, 256, 512, 1024, 2048), halved=5)
SIZES: dict[str, PannsSizes] = {
    "panns-cnn6": PannsSizes(widths=(64, 128, 256, 512), halved=4, kernel=5, convolutions=1),
    "panns-cnn10": PannsSizes(widths=(64, 128, 256, 512), halved=4),
    "panns-cnn14": CNN14,
    "panns-cnn14-16k": PannsSizes(
        widths=CNN14.widths, halved=CNN14.halved, sample_rate=16_000, window=512, hop=160, highest=8_000.0
    ),
}
# name -> file and SHA-256; Zenodo states MD5 only: Cnn6 e25e26b84585b14c7754c91e48efc9be, Cnn10
# bfb1f1f9968938fa8ef4012b8471f5f6
FILES: dict[str, tuple[str, str | None]] = {
    "panns-cnn6": ("Cnn6_mAP%3D0.343.pth", None),
    "panns-cnn10": ("Cnn10_mAP%3D0.380.pth", None),
    "panns-cnn14": ("Cnn14_mAP%3D0.431.pth", "0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31"),
    "panns-cnn14-16k": (
        "Cnn14_16k_mAP%3D0.438.pth",
        "e2ee543a27919542c2ea03eabaa70b24dcd4e6c8e05621de6b67a94e4c5058e6",
    ),
}


def build_panns(options: BuildOptions, *, sizes: PannsSizes) -> Parts:
    """The network and its linear head."""
    width = sizes.widths[-1]
    head = nn.Linear(width, options.num_classes) if options.num_classes else None
    return Parts(trunk=Panns(sizes), head=head, feature_size=width)


def convert_panns(state: StateDict) -> StateDict:
    """The hub's key names to the network's."""
    return {name.removeprefix(MIRROR): tensor for name, tensor in state.items()}


def read_panns(path: Path) -> StateDict:
    """A published file without its Fourier transform; the 16 kHz file holds its sampler's arrays too, left out here."""
    try:
        state, _ = read_state_dict(path)
    except UnsafeFileError:
        content = load_with_arrays(path)
        inner = content.get("model") if isinstance(content, dict) else None
        if not isinstance(inner, dict):
            raise
        state = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    return {name: tensor for name, tensor in state.items() if not name.startswith(TRANSFORM)}


for _name, _sizes in SIZES.items():
    _file, _sha256 = FILES[_name]
    _input = AudioInput(sample_rate=_sizes.sample_rate, shortest=_sizes.shortest)
    _last = f"conv{_sizes.convolutions}"
    ARCHITECTURES.add(
        _name,
        Architecture(
            name=_name,
            domain="audio",
            tasks=("tagging", "classification", "features"),
            build=partial(build_panns, sizes=_sizes),
            input=_input,
            stages=("bn0", *(f"conv_block{number + 1}" for number in range(len(_sizes.widths))), "fc1"),
            head_name="fc_audioset",
            pooling="avg",
            paper=PAPER,
            licence="mit",
            weights={
                "audioset": Weights(
                    name="audioset",
                    source=UrlSource(ADDRESS + _file, _sha256),
                    licence=LICENCE,
                    paper=PAPER,
                    input=_input,
                    sha256=_sha256,
                    labels="audioset-527",
                    convert=convert_panns,
                    read=read_panns,
                )
            },
            default_weights="audioset",
            outputs=CLASSES,
            # a block's last convolution is the end of what stands for a feed-forward part: adapters go behind it
            roles={"stem": "conv_block1.conv1", "convolution": "conv_block?.conv?", "mlp.out": f"conv_block?.{_last}"},
        ),
        _name.removeprefix("panns-"),
        *(("panns",) if _name == "panns-cnn14" else ()),
    )
