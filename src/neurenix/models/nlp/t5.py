"""T5 and FLAN-T5: Raffel et al., Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...packages import require
from ...text import TextInput
from .._records import ARCHITECTURES, Architecture, BuildOptions, HubSource, Parts, StateDict, Weights
from .._sizes import Extent, read_sizes
from ._decoder import DecoderHead
from ._tokens import borrow, has_own_output, token_inputs

PAPER = (
    "Raffel et al., Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer, JMLR 2020, "
    "arXiv:1910.10683"
)
FLAN_PAPER = "Chung et al., Scaling Instruction-Finetuned Language Models, 2022, arXiv:2210.11416"

ROLES = {
    "stem": "shared",
    "attention.query": "encoder.block.*.SelfAttention.q",
    "attention.key": "encoder.block.*.SelfAttention.k",
    "attention.value": "encoder.block.*.SelfAttention.v",
    "attention.output": "encoder.block.*.SelfAttention.o",
    "mlp": "encoder.block.*.DenseReluDense",
    "mlp.in": "encoder.block.*.DenseReluDense.wi*",
    "mlp.out": "encoder.block.*.DenseReluDense.wo",
}
_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_HEAD = ("decoder.", "lm_head.")
_POSITIONS = 1 << 20  # they are relative, so that the memory is the limit


@dataclass(frozen=True, kw_only=True)
class T5Sizes:
    """The keys of config.json that define a T5, with the small one's values.

    tie_word_embeddings: whether the embedding gives the scores too, then of scaled features; not so since T5 1.1.
    """

    vocab_size: int = 32128
    d_model: int = field(default=512, metadata={"also": "hidden_size"})
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = field(default=6, metadata={"also": "num_hidden_layers"})
    num_decoder_layers: int | None = None
    num_heads: int = field(default=8, metadata={"also": "num_attention_heads"})
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = "relu"
    pad_token_id: int = 0
    eos_token_id: int = 1
    decoder_start_token_id: int = 0
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool | None = None

    def extent(self) -> Extent:
        """How large encoder and decoder would be."""
        inner = self.num_heads * self.d_kv
        layers = 2 * self.num_layers if self.num_decoder_layers is None else self.num_layers + self.num_decoder_layers
        kind = self.feed_forward_proj.removeprefix("gated-")
        return Extent(
            parameters=self.d_model * (2 * self.vocab_size + layers * (8 * inner + 3 * self.d_ff)),
            layers=layers,
            heads=(self.num_heads,),
            width=min(inner, self.d_model) and inner,
            vocabulary=self.vocab_size,
            activation="gelu_new" if self.feed_forward_proj == "gated-gelu" else kind,
            tokens=(self.pad_token_id, self.eos_token_id, self.decoder_start_token_id),
        )


SMALL = T5Sizes()
BASE = T5Sizes(d_model=768, d_ff=3072, num_layers=12, num_heads=12)
FLAN_SMALL = T5Sizes(d_ff=1024, num_layers=8, num_heads=6, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
FLAN_BASE = T5Sizes(
    d_model=768, d_ff=2048, num_layers=12, num_heads=12, feed_forward_proj="gated-gelu", tie_word_embeddings=False
)


def stages(layers: int) -> tuple[str, ...]:
    """Names of the trunk's parts for an encoder of so many layers."""
    return ("shared", *(f"encoder.block.{layer}" for layer in range(layers)), "encoder.final_layer_norm")


@final
class T5Trunk(nn.Module):
    """The library's embedding and encoder under the library's names: token ids in, last hidden states out.

    max_length: as many tokens as are given; positions are relative, and those far off are all alike.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.shared: nn.Module = network.shared
        self.encoder: nn.Module = network.encoder
        self.config: Any = network.config
        self.max_length = _POSITIONS
        borrow(self.encoder, "embed_tokens", None)  # the encoder gets what `shared` makes of the tokens

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`input_ids` and `attention_mask` (or the first alone), each (n, t) -> (n, t, d)."""
        inputs = token_inputs(inputs)
        embedded = self.shared(inputs["input_ids"])
        found = self.encoder(inputs_embeds=embedded, attention_mask=inputs.get("attention_mask"))
        return cast(Tensor, found.last_hidden_state)


@final
class T5Head(DecoderHead):
    """T5's decoder, and the scores of the next token; see DecoderHead. `own`: they have weights of their own."""

    def __init__(self, network: Any, *, own: bool) -> None:
        super().__init__(network.decoder, network.shared, network.config, longest=_POSITIONS)
        if own:
            self.lm_head = nn.Linear(network.config.d_model, network.config.vocab_size, bias=False)
            nn.init.normal_(self.lm_head.weight, std=network.config.initializer_factor)

    def _scores(self, hidden: Tensor) -> Tensor:
        scaled = hidden * (self.config.d_model**-0.5) if self.config.scale_decoder_outputs else hidden
        return functional.linear(scaled, self.output_weight())

    def _library(self) -> Any:
        transformers = require("transformers", purpose="generating text")
        small = copy.deepcopy(self.config)
        small.num_layers = small.num_decoder_layers = 0
        with torch.device("meta"):
            shell = transformers.T5ForConditionalGeneration(small)
        shell.shared, shell.decoder = self.embedding, self.decoder
        shell.lm_head.weight = self.output_weight()
        shell.config = self.config
        return shell


def build_t5(options: BuildOptions, *, published: T5Sizes) -> Parts:
    """Build the library's encoder and decoder with random weights, with attention by torch's fused kernels."""
    transformers = require("transformers", purpose="the architecture t5")
    sizes = read_sizes(options.folder, published=published, model_type="t5")
    values = asdict(sizes)
    scales = values.pop("scale_decoder_outputs")
    config = transformers.T5Config(**values, attn_implementation="sdpa")
    if scales is not None:
        config.scale_decoder_outputs = scales
    network = (transformers.T5ForConditionalGeneration if options.num_classes else transformers.T5EncoderModel)(config)
    own = has_own_output(options.state, "head.lm_head.weight", "trunk.shared.weight", tied=sizes.tie_word_embeddings)
    trunk = T5Trunk(network)
    return Parts(
        trunk=trunk,
        head=T5Head(network, own=own) if options.num_classes else None,
        feature_size=sizes.d_model,
        channels_last=True,
        stages=stages(sizes.num_layers),
    )


def count_outputs(state: StateDict) -> int | None:
    """Tokens of the vocabulary; None for the file of an encoder alone."""
    has_decoder = any(name.startswith("head.decoder.block.") for name in state)
    return state["trunk.shared.weight"].shape[0] if has_decoder and "trunk.shared.weight" in state else None


def convert_hub(state: StateDict) -> StateDict:
    """The hub's key names to ours: encoder and embedding are the trunk, all else the head.

    The embedding, which is one tensor, is stored under up to three names; where `shared` is none of them, one of the
    others stands for it.
    """
    names = {key: key for key in state}
    alias = next((key for key in _EMBEDDINGS if key in state), None)
    if alias is not None:
        names[alias] = "shared.weight"
    return {_qualified(names[key]): tensor for key, tensor in state.items()}


def _qualified(name: str) -> str:
    if name.startswith(("trunk.", "head.")):
        return name
    return f"head.{name}" if name.startswith(_HEAD) else f"trunk.{name}"


def _register(name: str, sizes: T5Sizes, repository: str, paper: str, *aliases: str) -> None:
    weights = Weights(
        name=name,
        source=HubSource(repository=repository),
        licence="apache-2.0",
        paper=paper,
        input=TextInput(max_length=512),
        convert=convert_hub,
    )
    ARCHITECTURES.add(
        name,
        Architecture(
            name=name,
            domain="nlp",
            tasks=("translation", "classification", "features"),
            build=partial(build_t5, published=sizes),
            input=weights.input,
            stages=stages(sizes.num_layers),
            head_name="",
            pooling="avg",
            paper=paper,
            licence="apache-2.0",
            weights={name: weights},
            default_weights=name,
            outputs=sizes.vocab_size,
            count_outputs=count_outputs,
            roles=ROLES,
        ),
        repository,
        *aliases,
    )


_register("t5-small", SMALL, "google-t5/t5-small", PAPER, "t5")
_register("t5-base", BASE, "google-t5/t5-base", PAPER)
_register("flan-t5-small", FLAN_SMALL, "google/flan-t5-small", FLAN_PAPER)
_register("flan-t5-base", FLAN_BASE, "google/flan-t5-base", FLAN_PAPER)
