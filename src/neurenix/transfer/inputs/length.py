"""Texts longer than the positions that an encoder was made with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from ...errors import ConfigurationError, EditError
from ...models import PretrainedModel
from ...registry import Registry
from ...text import TextPreprocess
from ..surgery._changes import Changes
from ..surgery._edit import EDITS, InputEdit, Trial, perform
from ..surgery._trial import example_inputs
from ._images import check_is_model

POSITIONS: Registry[Callable[[Tensor, int], Tensor]] = Registry("way to make positions")
_MOST = 1 << 16


@POSITIONS.register("repeat")
def repeated(positions: Tensor, count: int) -> Tensor:
    """(t, d) -> (count, d): as they are, and then from the second on again and again; the first begins the text.

    Beltagy, Peters & Cohan, Longformer, 2020, section 5, copy them likewise.
    """
    places = torch.arange(count)
    places[1:] = 1 + (places[1:] - 1) % (len(positions) - 1)
    return positions[places.to(positions.device)]


@POSITIONS.register("interpolate")
def interpolated(positions: Tensor, count: int) -> Tensor:
    """(t, d) -> (count, d): the first as it is, the others stretched linearly."""
    rest = positions[1:].float().T[None]
    stretched = nn.functional.interpolate(rest, size=count - 1, mode="linear", align_corners=True)[0].T
    return torch.cat([positions[:1], stretched.to(positions.dtype)])


def adapt_length(
    model: PretrainedModel, max_length: int, *, how: str = "repeat", optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Any] | None:
    """Make a BERT-like encoder read longer texts; gives the edit's record, None where nothing changes.

    New positions are made of the old ones, so that training has something to begin with. The model is changed in place;
    undo_edit takes it back.

    Args:
        model: of texts with learned positions, BERT or RoBERTa, with its tokenizer.
        max_length: of a text, in tokens, at least what the model reads now.
        how: "repeat", the old positions as they are and then again, so that texts that fitted give what they gave; or
            "interpolate", the old ones stretched.
        optimizer: trains the model, and shall train the new positions.

    Raises:
        EditError: the model has no such positions; it is as it was. UnknownNameError: there is no such way.
        ConfigurationError: the length is none, or shorter than now.
    """
    model = check_is_model(model)
    trunk, preprocess = cast(Any, model.trunk), model.preprocess
    if not isinstance(preprocess, TextPreprocess) or _positions(model) is None:
        raise EditError(
            f"{model.name} has no embeddings of positions in a text, or no tokenizer; this needs a model such as "
            "bert-base-uncased. The model is as it was."
        )
    POSITIONS.canonical(how)
    known = int(trunk.max_length)
    least = preprocess.max_length
    if isinstance(max_length, bool) or not isinstance(max_length, int) or not least <= max_length <= _MOST:
        raise ConfigurationError(
            f"max_length={max_length!r}; it is a number of tokens from {least}, what the model reads now, to {_MOST}."
        )
    if max_length == preprocess.max_length:
        return None
    edit = AdaptLength(max_length=max_length, positions=max(max_length, known), how=how)
    return perform(Trial.of(model), edit, optimizer=optimizer)


@final
@EDITS.register("adapt_length")
@dataclass(frozen=True, kw_only=True)
class AdaptLength(InputEdit):
    """max_length: of a text, in tokens. positions: that the model has then. how: a key of POSITIONS."""

    max_length: int
    positions: int
    how: str

    def apply(self, model: nn.Module, changes: Changes) -> None:
        """See Edit."""
        trunk, embeddings = cast(Any, model.get_submodule("trunk")), _positions(model)
        known = int(trunk.max_length)
        if embeddings is not None and self.positions > known:
            table = embeddings.position_embeddings
            rows = table.weight.detach()
            unused = len(rows) - known  # RoBERTa's first positions are those of padding
            grown = torch.cat([rows[:unused], POSITIONS[self.how](rows[unused:], self.positions)])
            changes.resize(table, "weight", nn.Parameter(grown, table.weight.requires_grad))
            changes.set(table, "num_embeddings", len(grown))
            for name in ("position_ids", "token_type_ids"):
                if isinstance(getattr(embeddings, name, None), Tensor):
                    changes.set(embeddings, name, _lengthened(name, getattr(embeddings, name), len(grown)))
            changes.set(trunk, "max_length", self.positions)
        preprocess = getattr(model, "preprocess", None)
        if isinstance(preprocess, TextPreprocess):
            changes.set(model, "preprocess", preprocess.with_max_length(self.max_length))

    def describe(self) -> str:
        """See Edit."""
        return f"adapting to texts of {self.max_length} tokens"

    def inputs_after(self, model: nn.Module, inputs: Any) -> Any:
        """See InputEdit."""
        batch = example_inputs(model)
        long = {name: value[:, :1].expand(-1, self.max_length) for name, value in batch.items()}
        return copy.deepcopy(long)


def _positions(model: nn.Module) -> Any:
    """The embeddings of an encoder with learned positions; None of another network."""
    embeddings = getattr(getattr(model, "trunk", None), "embeddings", None)
    return embeddings if isinstance(getattr(embeddings, "position_embeddings", None), nn.Embedding) else None


def _lengthened(name: str, numbers: Tensor, count: int) -> Tensor:
    """The library's own (1, count) numbers of places, or zeros of the first segment."""
    if name == "position_ids":
        return torch.arange(count, dtype=numbers.dtype, device=numbers.device)[None]
    return torch.zeros(1, count, dtype=numbers.dtype, device=numbers.device)
