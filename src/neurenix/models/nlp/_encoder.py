"""What BERT and RoBERTa share: sizes read from config.json, the trunk, and the hub's key names.

config.json is data: the keys below are taken, every other one (auto_map, custom code, paths) is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast, final

from torch import Tensor, nn

from ...errors import DamagedFileError, InputMismatchError, WeightsMismatchError
from ...packages import require
from ...storage import read_json
from .._records import BuildOptions, Parts, StateDict

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
_MOST_PARAMETERS, _MOST_LAYERS = 20_000_000_000, 512


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


def stages(layers: int) -> tuple[str, ...]:
    """Names of the trunk's parts for an encoder of so many layers."""
    return ("embeddings", *(f"encoder.layer.{layer}" for layer in range(layers)))


def read_sizes(folder: str | None, *, published: EncoderSizes, model_type: str) -> EncoderSizes:
    """The sizes in `folder`/config.json, or the published ones where there is no such file."""
    path = Path(folder or "", "config.json")
    if folder is None or not path.is_file():
        return published
    content = read_json(path)
    if not isinstance(content, Mapping):
        raise DamagedFileError(f"{path} holds {type(content).__name__} instead of an object with the model's sizes.")
    if content.get("model_type", model_type) != model_type:
        raise WeightsMismatchError(
            f"{path} is of a {content['model_type']!r} model, not of a {model_type!r} one; load it under the "
            "name of its own architecture."
        )
    sizes = EncoderSizes(**{key: _checked(path, key, value) for key, value in _known(content, published).items()})
    _check_whole(path, sizes)
    return sizes


def _known(content: Mapping[str, Any], published: EncoderSizes) -> dict[str, Any]:
    values = asdict(published)
    return {key: content.get(key, default) for key, default in values.items()}


def _checked(path: Path, key: str, value: Any) -> Any:
    kind = {field.name: field.type for field in fields(EncoderSizes)}[key]
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**7
    share = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 10
    if {"int": whole, "float": share, "str": isinstance(value, str)}[str(kind)]:
        return value
    raise DamagedFileError(f"{path} says {key} = {value!r}, which is no usable {kind}.")


def _check_whole(path: Path, sizes: EncoderSizes) -> None:
    """Refuse what could only fill the memory, or what the library cannot build, before it is built."""
    from transformers.activations import ACT2FN

    width = sizes.hidden_size
    layer = width * (4 * width + 2 * sizes.intermediate_size)
    places = sizes.vocab_size + sizes.max_position_embeddings + sizes.type_vocab_size
    parameters = places * width + sizes.num_hidden_layers * layer
    if parameters > _MOST_PARAMETERS or sizes.num_hidden_layers > _MOST_LAYERS:
        raise DamagedFileError(
            f"{path} asks for {parameters:,} parameters in {sizes.num_hidden_layers:,} layers; no encoder of this kind "
            f"has more than {_MOST_PARAMETERS:,} in {_MOST_LAYERS}."
        )
    heads = sizes.num_attention_heads
    if not heads or not width or width % heads or sizes.hidden_act not in ACT2FN:
        raise DamagedFileError(
            f"{path} asks for {heads} heads over {width} features and the activation {sizes.hidden_act!r}; the "
            "features have to be a multiple of the heads, and the activation one that transformers has."
        )


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

        if not isinstance(inputs, Mapping):
            raise InputMismatchError(
                "a text model reads a mapping with input_ids and attention_mask, not "
                f"{type(inputs).__name__}; model.preprocess makes one from a text."
            )
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
