"""What BERT and RoBERTa share: their sizes, the trunk, and the hub's key names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast, final

from torch import Tensor, nn

from ...nn import EmbeddedTokens
from ...packages import require
from .._records import BuildOptions, Parts, StateDict
from .._sizes import Extent, read_sizes
from ._tokens import token_inputs

ROLES = {
    "stem": "embeddings",
    "attention.query": "encoder.layer.*.attention.self.query",
    "attention.key": "encoder.layer.*.attention.self.key",
    "attention.value": "encoder.layer.*.attention.self.value",
    "attention.output": "encoder.layer.*.attention.output.dense",
    "mlp.in": "encoder.layer.*.intermediate.dense",
    "mlp.out": "encoder.layer.*[0-9].output.dense",
    "mlp.join": "encoder.layer.*[0-9].output",
    "mlp.norm_after": "encoder.layer.*[0-9].output.LayerNorm",
}


@dataclass(frozen=True, kw_only=True)
class EncoderSizes:
    """The keys of config.json that define a BERT-like encoder, with BERT base's values."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0

    def extent(self) -> Extent:
        """How large the encoder would be."""
        layer = self.hidden_size * (4 * self.hidden_size + 2 * self.intermediate_size)
        places = self.vocab_size + self.max_position_embeddings + self.type_vocab_size
        return Extent(
            parameters=places * self.hidden_size + self.num_hidden_layers * layer,
            layers=self.num_hidden_layers,
            heads=(self.num_attention_heads,),
            width=self.hidden_size,
            vocabulary=self.vocab_size,
            activation=self.hidden_act,
            tokens=(self.pad_token_id,),
        )


def stages(layers: int) -> tuple[str, ...]:
    """Names of the trunk's parts for an encoder of so many layers."""
    return ("embeddings", *(f"encoder.layer.{layer}" for layer in range(layers)))


@final
class TextTrunk(nn.Module):
    """The library's embeddings and encoder under the library's names: token ids in, last hidden states out.

    max_length: the longest sequence that the position embeddings reach.
    """

    def __init__(self, network: Any, max_length: int) -> None:
        super().__init__()
        self.embeddings: nn.Module = network.embeddings
        self.encoder: nn.Module = network.encoder
        self.config: Any = network.config
        self.max_length = max_length

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`input_ids`, `attention_mask`, `token_type_ids` (or the first alone), each (n, t) -> (n, t, d)."""
        from transformers.masking_utils import create_bidirectional_mask

        if isinstance(self.embeddings, EmbeddedTokens):  # made to read something else than texts
            embedded = self.embeddings(inputs)
        else:
            inputs = token_inputs(inputs)
            embedded = self.embeddings(input_ids=inputs["input_ids"], token_type_ids=inputs.get("token_type_ids"))
        mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=embedded, attention_mask=inputs.get("attention_mask")
        )
        return cast(Tensor, self.encoder(embedded, attention_mask=mask).last_hidden_state)


def build_encoder(options: BuildOptions, *, model_type: str, published: EncoderSizes) -> Parts:
    """Build the library's encoder with random weights, with attention by torch's fused kernels."""
    transformers = require("transformers", purpose=f"the architecture {model_type}")
    configuration, network = {
        "bert": (transformers.BertConfig, transformers.BertModel),
        "roberta": (transformers.RobertaConfig, transformers.RobertaModel),
    }[model_type]
    sizes = read_sizes(options.folder, published=published, model_type=model_type)
    settings = configuration(**asdict(sizes), attn_implementation="sdpa")
    # RoBERTa's first positions are those up to the padding token's id, and no text reaches them.
    unreachable = sizes.pad_token_id + 1 if model_type == "roberta" else 0
    trunk = TextTrunk(network(settings, add_pooling_layer=False), sizes.max_position_embeddings - unreachable)
    return Parts(
        trunk=trunk,
        head=None,
        feature_size=sizes.hidden_size,
        channels_last=True,
        stages=stages(sizes.num_hidden_layers),
    )


def convert_hub(state: StateDict) -> StateDict:
    """The hub's key names to the trunk's.

    `bert.` and `roberta.` in front go; `gamma` and `beta`, as in 2018, become weight and bias.
    """
    return {_trunk_key(key): tensor for key, tensor in state.items()}


def _trunk_key(key: str) -> str:
    key = key.removeprefix("bert.").removeprefix("roberta.")
    return key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
