"""Small checkpoints of every family in its own form, for strangers to spoil.

The numbers are zeros of one byte under the published names and in the published shapes, so that files stay small.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from tests.families.language_checkpoints import write_gpt2, write_marian, write_t5
from tests.families.segmentation_checkpoints import brain_state
from tests.families.test_jukebox import little, published_form
from tests.families.test_music_transformer import magenta_variables
from tests.families.word_vector_files import BUCKETS, WORDS, as_fasttext, as_text, as_word2vec, vectors
from tests.local_hub import write_text_checkpoint
from tests.tensor_bundles import write_bundle
from torch import Tensor

from neurenix.models import ARCHITECTURES, BuildOptions
from neurenix.models._loading import named_tensors
from neurenix.models.audio._jukebox_prior import JukeboxPrior
from neurenix.models.audio.deepspeech2 import SYMBOLS, DeepSpeechSizes, new_deepspeech2
from neurenix.vision import ImageInput

State = dict[str, Tensor]
Files = dict[str, bytes]
LINK = b"-> "  # and where it points, in place of a content

SPEECH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SPEECH |= {"conv_dim": [16] * 3, "conv_kernel": [10, 3, 3], "conv_stride": [5, 2, 2], "num_conv_pos_embeddings": 16}
SPEECH |= {"num_conv_pos_embedding_groups": 4, "vocab_size": 32, "model_type": "wav2vec2"}
BOXES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
BOXES |= {"image_size": [64, 96], "num_detection_tokens": 10, "model_type": "yolos"}
PICTURES = {"pretrained_cfg": {"input_size": [3, 224, 224]}}
UNET = {"_model_class": "Unet", "encoder_name": "mobilenet_v2"}
DEEPLAB = {"_model_class": "DeepLabV3Plus", "encoder_name": "mobilenet_v2"}


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family's smallest member, and how its files look.

    wrapper: the key that the published torch file has its tensors under. legacy: it is in torch's form of 2020.
    rename: beginning of names of ours -> of the file's. alias: beginning of the file's names -> of others that are read
    as the same. config: what config.json says. write: writes the family's whole folder, where it has more files.
    names: of config.json's keys for layers and for the largest sizes. small: few enough numbers to write all of them.
    """

    model: str
    file: str
    wrapper: str | None = None
    legacy: bool = False
    rename: tuple[str, str] = ("trunk.", "")
    alias: tuple[str, str] | None = None
    config: dict[str, Any] | None = None
    write: Callable[[Path], Any] | None = None
    names: tuple[str, ...] = ()
    small: bool = True

    @cached_property
    def files(self) -> Files:
        """The whole folder of a good checkpoint."""
        if self.write is None:
            beside = {} if self.config is None else {"config.json": json.dumps(self.config).encode()}
            return {**beside, self.file: self.packed(self.state)}
        with TemporaryDirectory() as folder:
            self.write(Path(folder))
            return {path.name: path.read_bytes() for path in Path(folder).iterdir()}

    @cached_property
    def state(self) -> State:
        """The tensors of a good checkpoint, under the file's names."""
        if self.model in (*VECTORS, "music-transformer"):
            return {}
        if self.write is not None:
            found = _read(self.files[self.file], self.file)
            return found if self.wrapper is None else found[self.wrapper]
        return {self._their_name(name): hollow(tensor) for name, tensor in self._sketch.items()}

    @property
    def is_torch(self) -> bool:
        return self.file.endswith((".pth", ".pt", ".bin", ".tar")) and self.model not in VECTORS

    def packed(self, state: Any) -> bytes:
        """The file that holds these tensors."""
        if self.file.endswith(".safetensors"):
            return save_tensors({name: tensor.contiguous() for name, tensor in state.items()}, {"format": "pt"})
        stream = io.BytesIO()
        content = state if self.wrapper is None else {self.wrapper: state, "epoch": 3}
        torch.save(content, stream, _use_new_zipfile_serialization=not self.legacy)
        return stream.getvalue()

    def head_names(self) -> list[str]:
        """Tensors of the file with one row for each class."""
        outputs = ARCHITECTURES[self.model].outputs
        ours = {name: tensor for name, tensor in self._sketch.items() if name.startswith("head.")}
        return [
            self._their_name(name) for name, x in ours.items() if outputs > 1 and x.ndim > 1 and x.shape[0] == outputs
        ]

    @cached_property
    def _sketch(self) -> State:
        architecture = ARCHITECTURES[self.model]
        size = architecture.input.size if isinstance(architecture.input, ImageInput) else None
        with TemporaryDirectory() as folder, torch.device("meta"):
            (Path(folder) / "config.json").write_text(json.dumps(self.config or {}))
            options = BuildOptions(
                num_classes=architecture.outputs, image_size=size, folder=folder if self.config else None
            )
            return dict(named_tensors(architecture.build(options)))

    def _their_name(self, name: str) -> str:
        head = ARCHITECTURES[self.model].head_name
        if name.startswith("head."):
            return f"{head}.{name[5:]}" if head else name[5:]
        return name.replace(*self.rename, 1)


def hollow(tensor: Tensor) -> Tensor:
    return torch.zeros(tuple(tensor.shape), dtype=torch.uint8)


def _read(content: bytes, name: str) -> Any:
    if name.endswith(".safetensors"):
        with TemporaryDirectory() as folder:
            (Path(folder) / name).write_bytes(content)
            return load_file(Path(folder) / name)
    return torch.load(io.BytesIO(content), weights_only=True)


def _write_vectors(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(content)


def _write_brain(folder: Path) -> None:
    torch.save(brain_state(), folder / "unet.pt")


@cache
def _prior() -> State:
    with torch.device("meta"):
        network = JukeboxPrior(little("jukebox-1b-lyrics"), 4, answers=True)
    return {f"module.{name}": hollow(tensor) for name, tensor in published_form(network).items()}


def _write_prior(folder: Path) -> None:
    torch.save({"model": _prior(), "step": 3}, folder / "prior_level_2.pth.tar", _use_new_zipfile_serialization=False)


def _write_music(folder: Path) -> None:
    write_bundle(folder / "music.ckpt", magenta_variables())


def _write_speech(folder: Path) -> None:
    model = new_deepspeech2(DeepSpeechSizes(hidden=16, layers=2))
    names = [(name.partition(".")[2], tensor) for name, tensor in model.state_dict().items()]
    state = {name: hollow(tensor) for name, tensor in names if name != "vocabulary"}
    torch.save({"state_dict": state, "labels": list(SYMBOLS)}, folder / "deepspeech.pth")


LAYERS = ("num_hidden_layers", "hidden_size", "max_position_embeddings", "vocab_size")
BOX = ("backbone.", "trunk.backbone.")
VECTORS = ("glove", "word2vec", "fasttext")
FAMILIES = (
    Family(model="resnet18", file="resnet18.pth"),
    Family(model="efficientnet-b0", file="model.safetensors"),
    Family(model="vit-tiny-patch16-224", file="model.safetensors", config=PICTURES),
    Family(model="mobilenetv2", file="mobilenet_v2.pth"),
    Family(model="yolox-nano", file="yolox_nano.pth", wrapper="model"),
    Family(
        model="yolos-tiny",
        file="pytorch_model.bin",
        rename=("trunk.", "vit."),
        alias=("vit.", "trunk."),
        config=BOXES,
        names=("num_hidden_layers", "hidden_size", "patch_size", "num_detection_tokens"),
    ),
    Family(model="fasterrcnn_mobilenet_v3_large_320_fpn", file="fasterrcnn.pth", alias=BOX),
    Family(model="maskrcnn_resnet50_fpn", file="maskrcnn.pth", small=False),
    Family(model="retinanet_resnet50_fpn", file="retinanet.pth", small=False),
    Family(model="deeplabv3_mobilenet_v3_large", file="deeplab.pth", alias=BOX),
    Family(
        model="deeplabv3plus-mobilenet_v2",
        file="model.safetensors",
        alias=("encoder.", "trunk.encoder."),
        config=DEEPLAB,
        names=("encoder_depth", "decoder_channels", "in_channels", "upsampling"),
    ),
    Family(
        model="unet-mobilenet_v2",
        file="pytorch_model.bin",
        wrapper="state_dict",
        alias=("encoder.", "trunk.encoder."),
        config=UNET,
        names=("encoder_depth", "decoder_channels", "in_channels", "encoder_depth"),
    ),
    Family(model="unet-brain-mri", file="unet.pt", alias=("bottleneck.", "trunk.bottleneck."), write=_write_brain),
    Family(model="craft", file="craft_mlt_25k.pth", alias=("basenet.", "trunk.basenet.")),
    Family(
        model="bert-base-uncased",
        file="model.safetensors",
        alias=("bert.", ""),
        write=lambda folder: write_text_checkpoint(folder, "bert"),
        names=LAYERS,
    ),
    Family(
        model="roberta-base",
        file="model.safetensors",
        write=lambda folder: write_text_checkpoint(folder, "roberta"),
        names=LAYERS,
    ),
    Family(model="glove", file="glove.txt", write=_write_vectors("glove.txt", as_text(WORDS, vectors(), header=False))),
    Family(model="word2vec", file="word2vec.bin", write=_write_vectors("word2vec.bin", as_word2vec(WORDS, vectors()))),
    Family(
        model="fasttext",
        file="fasttext.bin",
        write=_write_vectors("fasttext.bin", as_fasttext(WORDS, vectors(len(WORDS) + BUCKETS))),
    ),
    Family(
        model="gpt2",
        file="model.safetensors",
        write=write_gpt2,
        names=("n_layer", "n_embd", "n_positions", "vocab_size"),
    ),
    Family(
        model="t5-small",
        file="model.safetensors",
        alias=("encoder.", "trunk.encoder."),
        write=write_t5,
        names=("num_layers", "d_model", "num_decoder_layers", "vocab_size"),
    ),
    Family(
        model="opus-mt-en-de",
        file="pytorch_model.bin",
        alias=("model.encoder.", "encoder."),
        write=write_marian,
        names=("encoder_layers", "d_model", "max_position_embeddings", "vocab_size"),
    ),
    Family(
        model="wav2vec2-base-960h",
        file="pytorch_model.bin",
        rename=("trunk.", "wav2vec2."),
        alias=("wav2vec2.", ""),
        config=SPEECH,
        names=("num_hidden_layers", "hidden_size", "num_conv_pos_embeddings", "intermediate_size"),
    ),
    Family(model="deepspeech2", file="deepspeech.pth", wrapper="state_dict", write=_write_speech),
    Family(model="voice-encoder", file="pretrained.pt", wrapper="model_state"),
    Family(model="vggish", file="vggish.pth", small=False),
    Family(model="panns-cnn6", file="Cnn6.pth", wrapper="model"),
    Family(model="jukebox-vqvae", file="vqvae.pth.tar", wrapper="model", legacy=True),
    Family(
        model="jukebox-1b-lyrics",
        file="prior_level_2.pth.tar",
        wrapper="model",
        legacy=True,
        write=_write_prior,
    ),
    Family(model="music-transformer", file="music.ckpt.index", write=_write_music),
)
