"""RoBERTa: Liu et al., RoBERTa: A Robustly Optimized BERT Pretraining Approach, 2019."""

from __future__ import annotations

from functools import partial

from ...text import TextInput
from .._records import ARCHITECTURES, Architecture, HubSource, Weights
from ._encoder import ROLES, EncoderSizes, build_encoder, convert_hub, stages

PAPER = "Liu et al., RoBERTa: A Robustly Optimized BERT Pretraining Approach, 2019, arXiv:1907.11692"

BASE = EncoderSizes(
    vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1
)
LARGE = EncoderSizes(
    vocab_size=50265,
    hidden_size=1024,
    num_hidden_layers=24,
    num_attention_heads=16,
    intermediate_size=4096,
    max_position_embeddings=514,
    type_vocab_size=1,
    layer_norm_eps=1e-5,
    pad_token_id=1,
)


def _register(name: str, sizes: EncoderSizes, revision: str, sha256: str | None = None) -> None:
    repository = f"FacebookAI/{name}"
    weights = Weights(
        name=name,
        source=HubSource(repository=repository, revision=revision),
        licence="mit",
        paper=PAPER,
        input=TextInput(),
        sha256=sha256,
        convert=convert_hub,
    )
    ARCHITECTURES.add(
        name,
        Architecture(
            name=name,
            domain="nlp",
            tasks=("classification", "features"),
            build=partial(build_encoder, model_type="roberta", published=sizes),
            input=weights.input,
            stages=stages(sizes.num_hidden_layers),
            head_name="classifier",
            pooling="cls",
            paper=PAPER,
            licence="apache-2.0",
            weights={name: weights},
            default_weights=name,
            roles=ROLES,
        ),
        repository,
    )


_register(
    "roberta-base",
    BASE,
    "e2da8e2f811d1448a5b465c236feacd80ffbac7b",
    "5bde1d28afb363d0103324efeb5afc8b2b397fe5e04beabb9b1ef355255ade81",
)
_register("roberta-large", LARGE, "722cf37b1afa9454edce342e7895e588b6ff1d59")
