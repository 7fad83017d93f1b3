"""GPT-2 and DistilGPT2: Radford et al., Language Models are Unsupervised Multitask Learners, 2019."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, ClassVar, Self, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigurationError
from ...nn import TaskHead, evaluating
from ...packages import require
from ...text import TextInput
from .._records import ARCHITECTURES, Architecture, BuildOptions, HubSource, Parts, StateDict, Weights
from .._sizes import Extent, read_sizes
from ._generation import GenerationSettings, generation_config, no_classes, refuse_prompts
from ._tokens import IGNORED, borrow, has_own_output, target_tokens, token_inputs, token_loss

PAPER = "Radford et al., Language Models are Unsupervised Multitask Learners, OpenAI 2019"
DISTIL_PAPER = "Sanh et al., DistilBERT, a Distilled Version of BERT, 2019, arXiv:1910.01108"

ROLES = {
    "stem": "wte",
    "attention.qkv": "h.*.attn.c_attn",
    "attention.output": "h.*.attn.c_proj",
    "mlp": "h.*.mlp",
    "mlp.in": "h.*.mlp.c_fc",
    "mlp.out": "h.*.mlp.c_proj",
}


@dataclass(frozen=True, kw_only=True)
class GPT2Sizes:
    """The keys of config.json that define a GPT-2, with the smallest one's values."""

    vocab_size: int = 50257
    n_positions: int = field(default=1024, metadata={"also": "max_position_embeddings"})
    n_embd: int = field(default=768, metadata={"also": "hidden_size"})
    n_layer: int = field(default=12, metadata={"also": "num_hidden_layers"})
    n_head: int = field(default=12, metadata={"also": "num_attention_heads"})
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False
    bos_token_id: int | None = 50256
    eos_token_id: int | None = 50256
    tie_word_embeddings: bool = True

    def extent(self) -> Extent:
        """How large the decoder would be."""
        inner = self.n_inner if self.n_inner is not None else 4 * self.n_embd
        return Extent(
            parameters=self.n_embd
            * (self.vocab_size + self.n_positions + self.n_layer * (4 * self.n_embd + 2 * inner)),
            layers=self.n_layer,
            heads=(self.n_head,),
            width=self.n_embd,
            vocabulary=self.vocab_size,
            activation=self.activation_function,
        )


SMALL = GPT2Sizes()
MEDIUM = GPT2Sizes(n_embd=1024, n_layer=24, n_head=16)
LARGE = GPT2Sizes(n_embd=1280, n_layer=36, n_head=20)
DISTIL = GPT2Sizes(n_layer=6)


def stages(layers: int) -> tuple[str, ...]:
    """Names of the trunk's parts for a decoder of so many layers."""
    return ("wte", "wpe", *(f"h.{layer}" for layer in range(layers)), "ln_f")


@final
class GPT2Trunk(nn.Module):
    """The library's embeddings and blocks under the library's names: token ids in, last hidden states out.

    Every token sees itself and what stands before it. max_length: positions that there are.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.wte: nn.Module = network.wte
        self.wpe: nn.Module = network.wpe
        self.drop: nn.Module = network.drop
        self.h: nn.ModuleList = network.h
        self.ln_f: nn.Module = network.ln_f
        self.config: Any = network.config
        self.max_length = int(self.config.n_positions)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`input_ids` and `attention_mask` (or the first alone), each (n, t), padded behind the text -> (n, t, d).

        `position_ids` (n, t) are needed for texts that are padded in front alone.
        """
        from transformers.masking_utils import create_causal_mask

        inputs = token_inputs(inputs)
        embedded = self.wte(inputs["input_ids"])
        places = inputs.get("position_ids")
        if places is None:
            places = torch.arange(embedded.shape[1], device=embedded.device).unsqueeze(0)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=embedded,
            attention_mask=inputs.get("attention_mask"),
            position_ids=places,
            **_without_cache(create_causal_mask, places[0]),
        )
        hidden = self.drop(embedded + self.wpe(places))
        for block in self.h:
            hidden = block(hidden, attention_mask=mask)
        return cast(Tensor, self.ln_f(hidden))


def _without_cache(create_mask: Callable[..., Any], places: Tensor) -> dict[str, Any]:
    """What says that nothing was read before, by the name that the installed transformers has for it."""
    said = {"cache": None, "past_key_values": None, "cache_position": places}
    return {name: said[name] for name in inspect.signature(create_mask).parameters if name in said}


@final
class GPT2Head(TaskHead):
    """Scores of the next token at every place: (n, t, d) -> (n, t, vocabulary).

    The weights are those of the trunk's embedding; `own` where a file has others.
    """

    task: ClassVar[str] = "generation"
    has_classes: ClassVar[bool] = False

    def __init__(self, embedding: nn.Module, config: Any, *, own: bool) -> None:
        super().__init__()
        self.config = config
        borrow(self, "embedding", embedding)
        like = embedding.get_parameter("weight")
        self.weight = nn.Parameter(torch.empty_like(like).normal_(std=config.initializer_range)) if own else None

    @property
    def num_outputs(self) -> int:
        """Tokens of the vocabulary."""
        return int(self.config.vocab_size)

    def output_weight(self) -> nn.Parameter:
        """(vocabulary, d)"""
        return cast(nn.Parameter, self.embedding.weight) if self.weight is None else self.weight  # type: ignore[union-attr]

    def forward(self, features: Tensor, inputs: Any) -> Tensor:
        """(n, t, d) -> scores (n, t, vocabulary) of the token behind each."""
        return functional.linear(features, self.output_weight())

    def losses(self, features: Tensor, inputs: Any, targets: Any) -> dict[str, Tensor]:
        """Mean cross-entropy of each token behind those before it.

        targets: the texts themselves, (n, t), padded with -1 or -100; None takes input_ids. What attention_mask leaves
        out is no target, so that the token that ends texts, and fills them up, is learnt where it stands for the end.
        """
        given = token_inputs(inputs)
        tokens = target_tokens(given["input_ids"] if targets is None else targets, self.num_outputs)
        mask = given.get("attention_mask")
        if mask is not None and mask.shape == tokens.shape:
            tokens = tokens.masked_fill(mask == 0, IGNORED)
        following = functional.pad(tokens, (0, 1), value=IGNORED)[:, 1:]
        return {"next_token": token_loss(self(features, inputs), following)}

    def for_classes(self, num_outputs: int) -> Self:
        """Raises ConfigurationError: the outputs are words."""
        raise no_classes(self)

    @torch.inference_mode()
    def generate(self, trunk: nn.Module, inputs: Mapping[str, Tensor], settings: GenerationSettings) -> Tensor:
        """What follows each text, (n, new tokens), by the library's own GPT2LMHeadModel on these very weights.

        inputs: as of the trunk, padded behind the texts.
        """
        refuse_prompts(trunk)
        ids, mask = _padded_in_front(token_inputs(inputs))
        if ids.shape[1] + settings.max_new_tokens > int(self.config.n_positions):
            raise ConfigurationError(
                f"{ids.shape[1]} tokens and max_new_tokens={settings.max_new_tokens} are more than the "
                f"{self.config.n_positions} positions of the model; shorten the text, or ask for fewer."
            )
        library = self._library(trunk)
        ends = self.config.eos_token_id
        config = generation_config(settings, pad_token_id=ends, eos_token_id=ends, bos_token_id=ends)
        with evaluating(library), settings.draws():
            found = library.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        return cast(Tensor, found[:, ids.shape[1] :])

    def _library(self, trunk: Any) -> Any:
        """The library's class around the trunk's own modules and the output weights."""
        transformers = require("transformers", purpose="generating text")
        small = copy.deepcopy(self.config)
        small.n_layer = 0
        with torch.device("meta"):
            shell = transformers.GPT2LMHeadModel(small)
        for name in ("wte", "wpe", "drop", "h", "ln_f"):
            setattr(shell.transformer, name, getattr(trunk, name))
        shell.lm_head.weight = self.output_weight()
        shell.config = shell.transformer.config = self.config
        return shell


def _padded_in_front(inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Ids and mask (n, t) with the padding moved from behind the texts to their front, where nothing is generated."""
    ids = inputs["input_ids"]
    mask = inputs.get("attention_mask", torch.ones_like(ids))
    length = ids.shape[1]
    padding = length - mask.sum(1, keepdim=True)
    places = (torch.arange(length, device=ids.device) - padding) % length
    return ids.gather(1, places), mask.gather(1, places)


def build_gpt2(options: BuildOptions, *, published: GPT2Sizes) -> Parts:
    """Build the library's decoder with random weights, with attention by torch's fused kernels."""
    transformers = require("transformers", purpose="the architecture gpt2")
    sizes = read_sizes(options.folder, published=published, model_type="gpt2")
    config = transformers.GPT2Config(**asdict(sizes), attn_implementation="sdpa")
    trunk = GPT2Trunk(transformers.GPT2Model(config))
    own = has_own_output(options.state, "head.weight", "trunk.wte.weight", tied=sizes.tie_word_embeddings)
    return Parts(
        trunk=trunk,
        head=GPT2Head(trunk.wte, config, own=own) if options.num_classes else None,
        feature_size=sizes.n_embd,
        channels_last=True,
        stages=stages(sizes.n_layer),
    )


def count_outputs(state: StateDict) -> int | None:
    """Tokens of the vocabulary: every file of a GPT-2 holds its language head, in the embedding."""
    return state["trunk.wte.weight"].shape[0] if "trunk.wte.weight" in state else None


def convert_hub(state: StateDict) -> StateDict:
    """The hub's key names to the trunk's: `transformer.` in front goes.

    Of the embedding and the head, which are one tensor, some files keep the head alone.
    """
    names = {key: key.removeprefix("transformer.") for key in state}
    if "wte.weight" not in names.values() and "lm_head.weight" in names:
        names["lm_head.weight"] = "wte.weight"
    return {names[key]: tensor for key, tensor in state.items()}


def _register(name: str, sizes: GPT2Sizes, repository: str, licence: str, paper: str, *aliases: str) -> None:
    weights = Weights(
        name=name,
        source=HubSource(repository=repository),
        licence=licence,
        paper=paper,
        input=TextInput(max_length=1024),
        convert=convert_hub,
    )
    ARCHITECTURES.add(
        name,
        Architecture(
            name=name,
            domain="nlp",
            tasks=("generation", "classification", "features"),
            build=partial(build_gpt2, published=sizes),
            input=weights.input,
            stages=stages(sizes.n_layer),
            head_name="lm_head",
            pooling="last",
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


_register("gpt2", SMALL, "openai-community/gpt2", "mit", PAPER, "gpt", "gpt2-small")
_register("gpt2-medium", MEDIUM, "openai-community/gpt2-medium", "mit", PAPER)
_register("gpt2-large", LARGE, "openai-community/gpt2-large", "mit", PAPER)
_register("distilgpt2", DISTIL, "distilbert/distilgpt2", "apache-2.0", DISTIL_PAPER)
