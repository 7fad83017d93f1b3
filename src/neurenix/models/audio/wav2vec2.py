"""Wav2Vec 2.0: Baevski et al., A Framework for Self-Supervised Learning of Speech Representations, NeurIPS 2020."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

from ...audio import Alphabet, AudioInput
from ...errors import ConfigurationError, DamagedFileError, WeightsMismatchError
from ...packages import require
from ...storage import read_json
from .._pretrained_model import PretrainedModel, new_model
from .._records import ARCHITECTURES, Architecture, BuildOptions, HubSource, Parts, StateDict, Weights
from ._ctc_head import CTCHead as CTCHead
from ._wav2vec_network import Wav2Vec2Trunk as Wav2Vec2Trunk
from ._wav2vec_sizes import Wav2Vec2Sizes as Wav2Vec2Sizes
from ._wav2vec_sizes import wav2vec2_sizes

PAPER = (
    "Baevski et al., wav2vec 2.0: Self-Supervised Learning of Speech Representations, NeurIPS 2020, arXiv:2006.11477"
)
SELF_TRAINING_PAPER = "Xu et al., Self-training and Pre-training are Complementary for Speech Recognition, ICASSP 2021"

BASE = Wav2Vec2Sizes()
LARGE_LV60 = Wav2Vec2Sizes(
    hidden_size=1024,
    num_hidden_layers=24,
    num_attention_heads=16,
    intermediate_size=4096,
    feat_extract_norm="layer",
    conv_bias=True,
    do_stable_layer_norm=True,
)
SPACE = "|"
SYMBOLS = ("<pad>", "<s>", "</s>", "<unk>", SPACE, *"ETAOINHSRDLUMWCFGYPBVK'XJQZ")
SOUNDS = AudioInput(normalise=True, files=("config.json", "vocab.json"))
HEAD = "lm_head"

ROLES = {
    "stem": "feature_extractor",
    "attention.query": "encoder.layers.*.attention.q_proj",
    "attention.key": "encoder.layers.*.attention.k_proj",
    "attention.value": "encoder.layers.*.attention.v_proj",
    "attention.output": "encoder.layers.*.attention.out_proj",
    "mlp": "encoder.layers.*.feed_forward",
    "mlp.in": "encoder.layers.*.feed_forward.intermediate_dense",
    "mlp.out": "encoder.layers.*.feed_forward.output_dense",
}
_NORM_AFTER = {"mlp.norm_after": "encoder.layers.*.final_layer_norm"}  # in front of it where norms are "stable"


def stages(sizes: Wav2Vec2Sizes) -> tuple[str, ...]:
    """Names of the trunk's parts. masked_spec_embed is what training puts in the place of hidden frames."""
    masked = ("masked_spec_embed",) if sizes.mask_time_prob > 0 or sizes.mask_feature_prob > 0 else ()
    layers = [f"encoder.layers.{layer}" for layer in range(sizes.num_hidden_layers)]
    norm = ["encoder.layer_norm"]
    ordered = [*layers, *norm] if sizes.do_stable_layer_norm else [*norm, *layers]
    return ("feature_extractor", "feature_projection", *masked, "encoder.pos_conv_embed", *ordered)


def build(options: BuildOptions, *, published: Wav2Vec2Sizes) -> Parts:
    """The library's network with random weights, of the sizes in config.json, attention by torch's fused kernels."""
    sizes = wav2vec2_sizes(options.folder, published)
    head = None
    if options.num_classes:
        head = _head(sizes, _alphabet(options, sizes))
    return _parts(sizes, head)


def new_wav2vec2(
    sizes: Wav2Vec2Sizes, symbols: Sequence[str] = SYMBOLS, blank: int = 0, space: str = SPACE
) -> PretrainedModel:
    """A network of one's own sizes with random weights that writes in one's own symbols; see neurenix.audio.Alphabet.

    Raises ConfigurationError for symbols that cannot be.
    """
    head = _head(sizes, Alphabet(symbols=tuple(symbols), blank=blank, space=space))
    return new_model(ARCHITECTURES["wav2vec2-base"], _parts(sizes, head))


def new_head(model: PretrainedModel, symbols: Sequence[str], blank: int = 0, space: str = SPACE) -> CTCHead:
    """A head for symbols of one's own, for `model.replace_head`. Raises ConfigurationError for other architectures."""
    if not isinstance(model.trunk, Wav2Vec2Trunk):
        raise ConfigurationError(f"{model.name} is no Wav2Vec 2.0, so its frames cannot be counted in this way.")
    alphabet = Alphabet(symbols=tuple(symbols), blank=blank, space=space)
    return CTCHead(model.feature_size, alphabet, name=HEAD, dropout=0.1, frames=model.trunk.frames)


def _parts(sizes: Wav2Vec2Sizes, head: CTCHead | None) -> Parts:
    transformers = require("transformers", purpose="the architecture wav2vec2")
    network = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**sizes.settings(), attn_implementation="sdpa"))
    return Parts(
        trunk=Wav2Vec2Trunk(network, sizes),
        head=head,
        feature_size=sizes.hidden_size,
        channels_last=True,
        stages=stages(sizes),
    )


def _head(sizes: Wav2Vec2Sizes, alphabet: Alphabet) -> CTCHead:
    return CTCHead(sizes.hidden_size, alphabet, name=HEAD, dropout=sizes.final_dropout, frames=sizes.frames)


def _alphabet(options: BuildOptions, sizes: Wav2Vec2Sizes) -> Alphabet:
    """The symbols saved with the weights, else those of vocab.json, else the published ones."""
    state = options.state or {}
    if "head.vocabulary" in state:
        return Alphabet.from_tensor(state["head.vocabulary"])
    weight = state.get(f"head.{HEAD}.weight")
    if weight is None:
        return Alphabet(symbols=SYMBOLS, space=SPACE)
    count, path = weight.shape[0], Path(options.folder or "", "vocab.json")
    symbols = _symbols(path, count) if options.folder is not None and path.is_file() else SYMBOLS
    if len(symbols) != count or sizes.pad_token_id >= count:
        raise WeightsMismatchError(
            f"the head in the file tells {count} symbols apart, and there is no vocab.json beside it that says which; "
            "put the one that belongs to it there, or load with include_top=False."
        )
    return Alphabet(symbols=symbols, blank=sizes.pad_token_id, space=SPACE if SPACE in symbols else " ")


def _symbols(path: Path, count: int) -> tuple[str, ...]:
    """The symbols of a vocab.json, {symbol: number}. Numbers that it leaves out are marks, not characters."""
    content = read_json(path)
    numbers = cast("dict[str, int]", content) if isinstance(content, dict) else {}
    whole = all(isinstance(number, int) and 0 <= number < count for number in numbers.values())
    named = {number: name for name, number in numbers.items()} if whole else {}
    symbols = tuple(named.get(number) or f"<{number}>" for number in range(count))
    if not named or len(named) != len(numbers) or len(set(symbols)) < count or any("\n" in name for name in numbers):
        raise DamagedFileError(
            f"{path} does not give each symbol a number of its own below {count}, the outputs of the head in the file; "
            "is it the vocabulary of other weights?"
        )
    return symbols


def convert_hub(state: StateDict) -> StateDict:
    """The hub's key names to ours: `wav2vec2.` in front goes, and the norm of the positions' weights has its new name.

    In files from before torch 2.1 that is weight_g and weight_v.
    """
    return {_qualified(name): tensor for name, tensor in state.items()}


def _qualified(name: str) -> str:
    if name.startswith(("trunk.", "head.")):
        return name
    if name.startswith(f"{HEAD}."):
        return f"head.{name}"
    name = name.removeprefix("wav2vec2.")
    for old, new in (
        ("weight_g", "parametrizations.weight.original0"),
        ("weight_v", "parametrizations.weight.original1"),
    ):
        name = name.replace(f"pos_conv_embed.conv.{old}", f"pos_conv_embed.conv.{new}")
    return f"trunk.{name}"


def _register(name: str, sizes: Wav2Vec2Sizes, file: str, *aliases: str, paper: str = PAPER) -> None:
    weights = Weights(
        name=name,
        source=HubSource(repository=f"facebook/{name}", file=file),
        licence="apache-2.0",
        paper=paper,
        input=SOUNDS,
        convert=convert_hub,
    )
    ARCHITECTURES.add(
        name,
        Architecture(
            name=name,
            domain="audio",
            tasks=("transcription", "classification", "features"),
            build=partial(build, published=sizes),
            input=SOUNDS,
            stages=stages(sizes),
            head_name="",
            pooling="avg",
            paper=paper,
            licence="apache-2.0",
            weights={name: weights},
            default_weights=name,
            outputs=sizes.vocab_size,
            roles=ROLES if sizes.do_stable_layer_norm else {**ROLES, **_NORM_AFTER},
        ),
        f"facebook/{name}",
        *aliases,
    )


# The first one is trained without texts: its published file has no head, and one with random weights gets one.
_register("wav2vec2-base", BASE, "pytorch_model.bin", "wav2vec2", "wav2vec")
_register("wav2vec2-base-960h", BASE, "model.safetensors")
_register("wav2vec2-large-960h-lv60-self", LARGE_LV60, "pytorch_model.bin", "wav2vec2-large", paper=SELF_TRAINING_PAPER)
