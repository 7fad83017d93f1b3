"""New words in a model's vocabulary: tokenizer, embedding and output weights grow together."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from ...errors import ConfigurationError, EditError
from ...models import PretrainedModel
from ...text import TextPreprocess
from ._changes import Changes
from ._edit import EDITS, Edit, Trial, perform

_STARTS = ("pieces", "mean")


def resize_vocabulary(
    model: PretrainedModel,
    tokens: Sequence[str],
    *,
    start: str = "pieces",
    optimizer: torch.optim.Optimizer | None = None,
) -> dict[str, Any]:
    """Make words or signs tokens of their own, which were cut into pieces until now; gives the edit's record.

    The embedding gets a row for each, and so does what scores the next token, tied or not; all other rows keep every
    byte. The tokenizer knows the new tokens and is saved with the model.

    Args:
        model: of texts, with its tokenizer. It is changed in place.
        tokens: new ones, e.g. ["<protein>", "immunoglobulin"].
        start: what a new row begins with: "pieces", the mean of the rows of the pieces that the token was cut into, or
            "mean", the mean of all rows (Hewitt, Initializing New Word Embeddings for Pretrained Language Models,
            2021).
        optimizer: trains the model; the moments of old rows are kept.

    Raises:
        EditError: the model has no tokenizer or no embedding of its tokens. ConfigurationError: a token is one already,
            or comes twice, or start is unknown.
    """
    if start not in _STARTS:
        raise ConfigurationError(f"start={start!r}; possible: {', '.join(map(repr, _STARTS))}.")
    preprocess = getattr(model, "preprocess", None)
    if not isinstance(preprocess, TextPreprocess):
        raise EditError(
            "a vocabulary grows together with its tokenizer, and this model has none that can: it needs a text model "
            f"loaded with its tokenizer, and its preprocessing is {type(preprocess).__name__}. The model is as it was."
        )
    tokens = [tokens] if isinstance(tokens, str) else list(tokens)
    known = [token for token in tokens if preprocess.token_number(token) is not None]
    if not tokens or known or len(set(tokens)) < len(tokens) or not all(tokens):
        shown = ", ".join(map(repr, known)) if known else repr(tokens)
        raise ConfigurationError(f"tokens have to be new texts, each once; {shown} cannot be added.")
    rows = _rows(model, preprocess.vocabulary_size)
    pieces = [preprocess.words(token) if start == "pieces" else [] for token in tokens]
    size = preprocess.vocabulary_size + len(tokens)
    edit = ResizeVocabulary(tokens=tokens, pieces=pieces, known=preprocess.vocabulary_size, rows=max(rows, size))
    return perform(Trial.of(model), edit, optimizer=optimizer)


@final
@EDITS.register("resize_vocabulary")
@dataclass(frozen=True, kw_only=True)
class ResizeVocabulary(Edit):
    """pieces: numbers of the tokens that each new one was cut into. known: tokens before. rows: of the embedding now,
    at least as many as there are tokens.
    """

    tokens: Sequence[str]
    pieces: Sequence[Sequence[int]]
    known: int
    rows: int

    def apply(self, model: nn.Module, changes: Changes) -> None:
        """See Edit."""
        old = _rows(model, self.known)
        counts = _counts(model, old)
        grown: dict[int, Any] = {}
        for owner, name, axis in _sized(model, old):
            tensor = getattr(owner, name)
            if id(tensor) not in grown:
                values = self._grown(tensor.detach(), axis)
                is_parameter = isinstance(tensor, nn.Parameter)
                grown[id(tensor)] = nn.Parameter(values, tensor.requires_grad) if is_parameter else values
            if isinstance(tensor, nn.Parameter):
                changes.resize(owner, name, grown[id(tensor)])
            else:
                changes.set(owner, name, grown[id(tensor)])
        for owner, name in counts:
            changes.set(owner, name, self.rows)
        preprocess = getattr(model, "preprocess", None)
        if isinstance(preprocess, TextPreprocess) and preprocess.vocabulary_size == self.known:
            changes.set(model, "preprocess", preprocess.with_tokens(self.tokens))

    def describe(self) -> str:
        """See Edit."""
        return f"adding {len(self.tokens)} tokens"

    def _grown(self, values: Tensor, axis: int) -> Tensor:
        """Rows of new tokens behind those of the old ones: of weights as `pieces` says, of biases zeros."""
        values = values.movedim(axis, 0)
        new = values.new_zeros(self.rows, *values.shape[1:])
        new[: min(len(values), self.rows)] = values[: self.rows]
        if axis == 0 and values.ndim > 1:
            for number, pieces in enumerate(self.pieces):
                rows = values[list(pieces)] if len(pieces) else values[: self.known]
                new[self.known + number] = rows.float().mean(0).to(values.dtype)
        return new.movedim(0, axis).contiguous()


def _rows(model: nn.Module, vocabulary: int) -> int:
    """Rows of the embedding of tokens, at least one for each.

    It is the declared stem of a text model; in modules of the user's own the only embedding with so many rows, or the
    smallest with more.
    """
    embeddings = _token_embeddings(model)
    fitting = sorted({part.num_embeddings for part in embeddings if part.num_embeddings >= vocabulary})
    if not fitting:
        raise EditError(
            f"the model has no embedding with a row for each of its {vocabulary} tokens, so its vocabulary cannot "
            "grow. The model is as it was."
        )
    return fitting[0]


def _token_embeddings(model: nn.Module) -> list[nn.Embedding]:
    stem = model.architecture.roles["stem"] if isinstance(model, PretrainedModel) and model.architecture else "*"
    trunk = model.trunk if isinstance(model, PretrainedModel) else model
    named = [(name, part) for name, part in trunk.named_modules() if isinstance(part, nn.Embedding)]
    found = [part for name, part in named if any(fnmatch.fnmatchcase(name, way) for way in (stem, f"{stem}.*"))]
    return found or [part for _, part in named]


def _sized(model: nn.Module, rows: int) -> list[tuple[nn.Module, str, int]]:
    """(owner, name, axis) of all tensors that have an entry for each token, under every name that they have.

    Those are the embedding, what is tied to it, and what the head, or a layer right in it, has to score tokens.
    """
    shared = {id(part.weight) for part in _token_embeddings(model) if part.num_embeddings == rows}
    found: list[tuple[nn.Module, str, int]] = []
    for path, part in model.named_modules(remove_duplicate=False):
        scores = path == "head" or path.startswith("head.") and path.count(".") == 1 and not any(part.children())
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if tensor is not None and (id(tensor) in shared or (scores and rows in tensor.shape)):
                found.append((part, name, list(tensor.shape).index(rows)))
    return found


def _counts(model: nn.Module, rows: int) -> list[tuple[Any, str]]:
    """(owner, attribute) of all that tells the number of tokens: layers that have such tensors, and configurations."""
    layers = [(owner, name) for owner, _, _ in _sized(model, rows) for name in ("num_embeddings", "out_features")]
    configured = [(part.config, "vocab_size") for part in model.modules() if hasattr(part, "config")]
    found = {
        (id(owner), name): (owner, name) for owner, name in [*layers, *configured] if vars(owner).get(name) == rows
    }
    return list(found.values())
