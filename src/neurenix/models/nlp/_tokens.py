"""What text models read and are asked for: mappings of token numbers, and the next token's loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InputMismatchError
from .._records import StateDict

IGNORED = -100  # a target that no loss is computed for


def token_inputs(inputs: Any) -> Mapping[str, Tensor]:
    """`inputs`, if it is a mapping with input_ids; else InputMismatchError."""
    if not isinstance(inputs, Mapping) or "input_ids" not in inputs:
        got = f"one of {', '.join(map(str, inputs))}" if isinstance(inputs, Mapping) else type(inputs).__name__
        raise InputMismatchError(
            f"a text model reads a mapping with input_ids and attention_mask, not {got}; model.preprocess makes one "
            "from a text."
        )
    return inputs


def target_tokens(targets: Any, vocabulary: int) -> Tensor:
    """Target tokens (n, t) with every padding, -1 or any negative number, as -100."""
    tokens = targets.get("labels") if isinstance(targets, Mapping) else targets
    if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.is_floating_point():
        got = f"{tuple(tokens.shape)} {tokens.dtype}" if isinstance(tokens, Tensor) else type(tokens).__name__
        raise InputMismatchError(
            f"targets of a language model are token numbers (n, tokens), padded with {IGNORED}, not {got}; "
            "model.preprocess.encode_targets makes them from texts, and a dataset gives them as {'labels': row}."
        )
    if tokens.numel() and int(tokens.max()) >= vocabulary:
        raise InputMismatchError(
            f"the targets hold the token {int(tokens.max())}, and the vocabulary has {vocabulary}; they were tokenised "
            "for another model."
        )
    return tokens.masked_fill(tokens < 0, IGNORED)


def has_own_output(state: StateDict | None, output: str, embedding: str, *, tied: bool) -> bool:
    """Whether a head's output weights are its own, or those of the embedding.

    Where the file has both under these names it decides by their numbers, else what config.json says (tied). Files of
    the same model have the shared tensor once, twice or thrice, by what wrote them.
    """
    if state is None or output not in state or embedding not in state:
        return not tied
    return not torch.equal(state[output], state[embedding])


def token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean cross-entropy of the tokens that are not -100. logits: (n, t, v), tokens: (n, t) -> ()"""
    if not bool((tokens != IGNORED).any()):
        return logits.sum() * 0  # a batch without any target costs nothing, instead of NaN
    return functional.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), ignore_index=IGNORED)


def shifted_right(tokens: Tensor, *, start: int, padding: int) -> Tensor:
    """What a decoder reads to give `tokens` (n, t), padded with -100: the start token, then all but the last."""
    first = tokens.new_full((len(tokens), 1), start)
    shifted = torch.cat([first, tokens[:, :-1]], 1)
    return shifted.masked_fill(shifted == IGNORED, padding)


def borrow(owner: nn.Module, name: str, module: nn.Module | None) -> None:
    """Let `owner` use another part's module under `name`, so that the weights which they share exist once.

    It is called as any other, copied along in one deepcopy of both, and neither listed among the owner's parameters nor
    saved with them: a second name for the same numbers could only be left behind.
    """
    owner._modules.pop(name, None)
    owner.__dict__[name] = module
