"""What adaptations of transformers share: other tokens in the place of words or patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...errors import EditError
from ...models import PretrainedModel
from ...nn import EmbeddedTokens
from ...nn.input_tokens import InputTokens
from ..surgery._changes import Changes

KEY = "tokens"


def check_reads_tokens(model: PretrainedModel) -> None:
    """Raise EditError for a model whose tokens cannot be made of something else."""
    if _patches(model) is None and _words(model) is None:
        raise EditError(
            f"{model.name} is no transformer that reads words or patches of images; this needs one such as "
            "vit-tiny-patch16-224 or all-minilm-l6-v2, which was not adapted to other samples yet. The model is as it "
            "was."
        )


def first_token(model: PretrainedModel) -> int:
    """Number of the token that begins every text of an encoder; 0 of what reads no texts."""
    encode = getattr(model.preprocess, "encode", None)
    return 0 if encode is None else int(encode([""]).ids[0][0])


def put_tokens(
    model: nn.Module, record: Mapping[str, Any], changes: Changes, *, count: int, first: int, ordered: bool
) -> None:
    """Put a maker of tokens in the place of a transformer's embeddings.

    record: the description of an InputTokens. count: of tokens that it makes. first: see first_token. ordered: whether
    they have places one after another, which get position embeddings of the weights', else zeros to begin with.
    """
    vision, language = _patches(model), _words(model)
    if vision is not None:
        _in_place_of_patches(model, vision, record, changes, count, ordered)
    elif language is not None:
        _in_place_of_words(model, language, record, changes, count, first, ordered)


def width_of(model: PretrainedModel) -> int:
    """Numbers of a token."""
    return int(model.feature_size)


def _patches(model: nn.Module) -> Any:
    """A vision transformer with position embeddings for its patches; None for another network."""
    trunk = cast(Any, getattr(model, "trunk", None))
    patches = getattr(getattr(trunk, "patch_embed", None), "proj", None)
    has_positions = isinstance(getattr(trunk, "pos_embed", None), nn.Parameter) and hasattr(trunk, "blocks")
    return trunk if isinstance(patches, nn.Conv2d) and has_positions else None


def _words(model: nn.Module) -> Any:
    """An encoder with embeddings of words; None for another network."""
    trunk = cast(Any, getattr(model, "trunk", None))
    embeddings = getattr(trunk, "embeddings", None)
    return trunk if hasattr(embeddings, "word_embeddings") and hasattr(embeddings, "LayerNorm") else None


def _in_place_of_patches(
    model: nn.Module, trunk: Any, record: Mapping[str, Any], changes: Changes, count: int, ordered: bool
) -> None:
    prefix = int(getattr(trunk, "num_prefix_tokens", 0))
    if getattr(trunk, "no_embed_class", False):
        prefix = 0
    positions = trunk.pos_embed.detach()
    if ordered:
        places = along_width(positions[:, prefix:], trunk.patch_embed.grid_size, count)
    else:
        places = positions.new_zeros(1, count, positions.shape[2])
    made = changes.make(record, KEY, trunk.patch_embed, model)
    resized = torch.cat([positions[:, :prefix], places], 1)
    changes.resize(trunk, "pos_embed", nn.Parameter(resized, trunk.pos_embed.requires_grad))
    changes.set(trunk, "patch_embed", made)


def along_width(positions: Tensor, grid: tuple[int, int], count: int) -> Tensor:
    """(1, h · w, d) of a grid -> (1, count, d): the mean over each column, from left to right, interpolated
    linearly.
    """
    columns = positions.float().unflatten(1, grid).mean(1)
    resampled = nn.functional.interpolate(columns.transpose(1, 2), size=count, mode="linear", align_corners=False)
    return resampled.transpose(1, 2).to(positions.dtype)


def _in_place_of_words(
    model: nn.Module, trunk: Any, record: Mapping[str, Any], changes: Changes, count: int, first: int, ordered: bool
) -> None:
    old = trunk.embeddings
    words, places = old.word_embeddings.weight.detach(), old.position_embeddings.weight.detach()
    begins = len(places) - int(trunk.max_length)  # RoBERTa's first positions are those of padding
    if ordered and 1 + count > int(trunk.max_length):
        raise EditError(
            f"a series of {count} patches needs as many positions, and the model has {int(trunk.max_length) - 1} "
            "behind its first token; take longer patches or a shorter series. The model is as it was."
        )
    start = words[first] + places[begins]
    if getattr(old, "token_type_embeddings", None) is not None:
        start = start + old.token_type_embeddings.weight.detach()[0]
    kept = places[begins + 1 : begins + 1 + count].clone() if ordered else places.new_zeros(count, places.shape[1])
    made = cast(InputTokens, changes.make(record, KEY, old, model))
    embedded = EmbeddedTokens(made, start, kept, old.LayerNorm, old.dropout)
    changes.set(trunk, "embeddings", embedded.train(old.training))
