"""Marian's translation models of the OPUS-MT project: Tiedemann & Thottingal, OPUS-MT, EAMT 2020."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import WeightsMismatchError
from ...packages import require
from ...text import TranslationInput
from .._records import ARCHITECTURES, Architecture, BuildOptions, HubSource, Parts, StateDict, Weights
from .._sizes import Extent, read_sizes
from ._decoder import DecoderHead
from ._tokens import borrow, token_inputs

PAPER = "Tiedemann & Thottingal, OPUS-MT: Building open translation services for the World, EAMT 2020"

ROLES = {
    "stem": "shared",
    "attention.query": "encoder.layers.*.self_attn.q_proj",
    "attention.key": "encoder.layers.*.self_attn.k_proj",
    "attention.value": "encoder.layers.*.self_attn.v_proj",
    "attention.output": "encoder.layers.*.self_attn.out_proj",
    "mlp.in": "encoder.layers.*.fc1",
    "mlp.out": "encoder.layers.*.fc2",
    "mlp.norm_after": "encoder.layers.*.final_layer_norm",
}
_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
_HEAD = ("decoder.", "lm_head.", "final_logits_bias")


@dataclass(frozen=True, kw_only=True)
class MarianSizes:
    """The keys of config.json that define a translation model, with the values of English to German."""

    vocab_size: int = 58101
    max_position_embeddings: int = 512
    d_model: int = field(default=512, metadata={"also": "hidden_size"})
    encoder_layers: int = 6
    encoder_ffn_dim: int = 2048
    encoder_attention_heads: int = 8
    decoder_layers: int = 6
    decoder_ffn_dim: int = 2048
    decoder_attention_heads: int = 8
    activation_function: str = "swish"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    init_std: float = 0.02
    scale_embedding: bool = True
    pad_token_id: int = 58100
    eos_token_id: int = 0
    decoder_start_token_id: int = 58100
    share_encoder_decoder_embeddings: bool = True

    def extent(self) -> Extent:
        """How large encoder and decoder would be."""
        encoder = self.encoder_layers * (4 * self.d_model + 2 * self.encoder_ffn_dim)
        decoder = self.decoder_layers * (8 * self.d_model + 2 * self.decoder_ffn_dim)
        return Extent(
            parameters=self.d_model * (self.vocab_size + 2 * self.max_position_embeddings + encoder + decoder),
            layers=self.encoder_layers + self.decoder_layers,
            heads=(self.encoder_attention_heads, self.decoder_attention_heads),
            width=self.d_model,
            vocabulary=self.vocab_size,
            activation=self.activation_function,
            tokens=(self.pad_token_id, self.eos_token_id, self.decoder_start_token_id),
        )


ENGLISH_GERMAN = MarianSizes()


def stages(layers: int) -> tuple[str, ...]:
    """Names of the trunk's parts for an encoder of so many layers."""
    return ("shared", *(f"encoder.layers.{layer}" for layer in range(layers)))


@final
class MarianTrunk(nn.Module):
    """The library's embedding and encoder under the library's names: token ids in, last hidden states out.

    Positions are sinusoidal (Vaswani et al., Attention Is All You Need, 2017, section 3.5, sines before cosines) and
    are never trained. max_length: how many there are.
    """

    def __init__(self, network: Any, *, stored: bool) -> None:
        super().__init__()
        self.shared: nn.Module = network.model.shared
        self.encoder: Any = network.model.encoder
        self.config: Any = network.config
        self.max_length = int(self.config.max_position_embeddings)
        borrow(self.encoder, "embed_tokens", None)  # the encoder gets what `shared` makes of the tokens
        _fix(self.encoder.embed_positions, stored=stored)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`input_ids` and `attention_mask` (or the first alone), each (n, t) -> (n, t, d)."""
        inputs = token_inputs(inputs)
        embedded = self.shared(inputs["input_ids"]) * self.encoder.embed_scale
        found = self.encoder(inputs_embeds=embedded, attention_mask=inputs.get("attention_mask"))
        return cast(Tensor, found.last_hidden_state)


@final
class MarianHead(DecoderHead):
    """Marian's decoder, and the scores of the next token with a bias for each; see DecoderHead."""

    def __init__(self, network: Any, *, stored: bool) -> None:
        longest = int(network.config.max_position_embeddings)
        super().__init__(network.model.decoder, network.model.shared, network.config, longest=longest)
        self.final_logits_bias: Tensor
        self.register_buffer("final_logits_bias", network.final_logits_bias)
        _fix(network.model.decoder.embed_positions, stored=stored)

    def _scores(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.output_weight()) + self.final_logits_bias

    def _special_tokens(self) -> dict[str, Any]:
        """Padding also starts a translation, so that it may not be chosen; one that is cut off is ended."""
        config = self.config
        return {
            "pad_token_id": config.pad_token_id,
            "eos_token_id": config.eos_token_id,
            "decoder_start_token_id": config.decoder_start_token_id,
            "forced_eos_token_id": config.eos_token_id,
            "bad_words_ids": [[config.pad_token_id]],
        }

    def _library(self) -> Any:
        transformers = require("transformers", purpose="translating")
        small = copy.deepcopy(self.config)
        small.encoder_layers = small.decoder_layers = 0
        with torch.device("meta"):
            shell = transformers.MarianMTModel(small)
        shell.model.shared, shell.model.decoder = self.embedding, self.decoder
        shell.lm_head.weight = self.output_weight()
        shell.final_logits_bias = self.final_logits_bias
        shell.config = shell.model.config = self.config
        return shell


def _fix(positions: nn.Module, *, stored: bool) -> None:
    """Make sinusoidal positions a buffer, which nothing trains. stored: whether files have them."""
    values = positions.get_parameter("weight").detach()
    del positions.weight
    positions.register_buffer("weight", values, persistent=stored)


def build_marian(options: BuildOptions, *, published: MarianSizes) -> Parts:
    """Build the library's encoder and decoder with random weights, with attention by torch's fused kernels."""
    transformers = require("transformers", purpose="the architecture marian")
    sizes = read_sizes(options.folder, published=published, model_type="marian")
    if not sizes.share_encoder_decoder_embeddings:
        raise WeightsMismatchError(
            "this translation model has two vocabularies (share_encoder_decoder_embeddings is false), and those with a "
            "shared one alone can be loaded; take another of the Helsinki-NLP/opus-mt models."
        )
    network = transformers.MarianMTModel(transformers.MarianConfig(**asdict(sizes), attn_implementation="sdpa"))
    state = options.state
    trunk = MarianTrunk(network, stored=state is None or "trunk.encoder.embed_positions.weight" in state)
    in_head = state is None or "head.decoder.embed_positions.weight" in state
    return Parts(
        trunk=trunk,
        head=MarianHead(network, stored=in_head) if options.num_classes else None,
        feature_size=sizes.d_model,
        channels_last=True,
        stages=stages(sizes.encoder_layers),
    )


def count_outputs(state: StateDict) -> int | None:
    """Tokens of the vocabulary; None for the file of an encoder alone."""
    has_decoder = any(name.startswith("head.decoder.layers.") for name in state)
    return state["trunk.shared.weight"].shape[0] if has_decoder and "trunk.shared.weight" in state else None


def convert_hub(state: StateDict) -> StateDict:
    """The hub's key names to ours: encoder and embedding are the trunk, all else the head; `model.` in front goes.

    The embedding, which is one tensor, is stored under up to four names; where `shared` is none of them, one of the
    others stands for it.
    """
    names = {key: key.removeprefix("model.") for key in state}
    alias = next((name for name in _EMBEDDINGS if name in names.values()), None)
    return {_qualified("shared.weight" if names[key] == alias else names[key]): value for key, value in state.items()}


def _qualified(name: str) -> str:
    if name.startswith(("trunk.", "head.")):
        return name
    return f"head.{name}" if name.startswith(_HEAD) else f"trunk.{name}"


ENGLISH_GERMAN_WEIGHTS = Weights(
    name="opus-mt-en-de",
    source=HubSource(repository="Helsinki-NLP/opus-mt-en-de", file="pytorch_model.bin"),
    licence="cc-by-4.0",
    paper=PAPER,
    input=TranslationInput(),
    convert=convert_hub,
)

ARCHITECTURES.add(
    "opus-mt-en-de",
    Architecture(
        name="opus-mt-en-de",
        domain="nlp",
        tasks=("translation", "classification", "features"),
        build=partial(build_marian, published=ENGLISH_GERMAN),
        input=ENGLISH_GERMAN_WEIGHTS.input,
        stages=stages(ENGLISH_GERMAN.encoder_layers),
        head_name="",
        pooling="avg",
        paper=PAPER,
        licence="apache-2.0",
        weights={"opus-mt-en-de": ENGLISH_GERMAN_WEIGHTS},
        default_weights="opus-mt-en-de",
        outputs=ENGLISH_GERMAN.vocab_size,
        count_outputs=count_outputs,
        roles=ROLES,
    ),
    "Helsinki-NLP/opus-mt-en-de",
    "marian",
    "nmt",
)
