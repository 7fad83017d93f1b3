"""A look at the first batch of tokens: can the model read it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..data import Finding


def check_tokens(inputs: Any, vocabulary_size: int, max_length: int) -> list[Finding]:
    """What does not fit in a batch of tokens {"input_ids": (n, tokens), …}; empty when all is well."""
    ids = inputs.get("input_ids") if isinstance(inputs, Mapping) else None
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        got = f"a tensor of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        words = (
            "texts have to be {'input_ids': (n, tokens), 'attention_mask': (n, tokens)}; the first batch "
            f"is {got}. Pass the texts themselves, or what model.preprocess makes of them."
        )
        return [Finding("layout", True, words)]
    if ids.is_floating_point():
        return [Finding("dtype", True, f"input_ids are token numbers and have to be whole, not {ids.dtype}.")]
    found = _ids(ids, vocabulary_size) + _length(ids, max_length)
    mask = inputs.get("attention_mask")
    if mask is not None and mask.shape != ids.shape:
        words = f"attention_mask {tuple(mask.shape)} and input_ids {tuple(ids.shape)} have to have one shape."
        found.append(Finding("mask", True, words))
    return found


def _ids(ids: Tensor, vocabulary_size: int) -> list[Finding]:
    low, high = int(ids.min()), int(ids.max())
    if 0 <= low and high < vocabulary_size:
        return []
    words = (
        f"token numbers go from {low} to {high}, but the vocabulary has {vocabulary_size}; the texts were "
        "tokenised for another model. Use model.preprocess."
    )
    return [Finding("vocabulary", True, words)]


def _length(ids: Tensor, max_length: int) -> list[Finding]:
    if ids.shape[1] <= max_length:
        return []
    words = (
        f"the batch has {ids.shape[1]} tokens per text and the model reads {max_length}; let "
        "model.preprocess cut them, or load the model with a larger max_length."
    )
    return [Finding("length", True, words)]
