"""Target texts of language and translation models."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

_IGNORED = -100  # where there is no target


def padded_targets(ids: Sequence[Sequence[int]]) -> Tensor:
    """Token numbers of each text -> (n, longest) int64, filled up with -100."""
    rows = [torch.tensor(row, dtype=torch.int64) for row in ids]
    return pad_sequence(rows, batch_first=True, padding_value=_IGNORED)


def restored(outputs: Any, decode: Callable[[Sequence[int]], str]) -> Any:
    """Texts for answers that are tokens (n, t), whole numbers; anything else (scores) as it is."""
    tokens = isinstance(outputs, Tensor) and outputs.ndim == 2 and not outputs.is_floating_point()
    return [decode(row) for row in outputs.tolist()] if tokens else outputs


def first_tokens(text: str, offsets: Sequence[tuple[int, int]], special: Sequence[int]) -> list[int]:
    """For each word of a text, as blanks separate them, the place of the first token that has a letter of it; else -1.

    offsets: of each token, the letters from start to before end. special: 1 for tokens that are not of the text.
    """
    owner = [-1] * len(text)
    words = list(re.finditer(r"\S+", text))
    for number, word in enumerate(words):
        owner[word.start() : word.end()] = [number] * (word.end() - word.start())
    places = [-1] * len(words)
    for place, (start, end) in reversed(list(enumerate(offsets))):
        for number in {owner[letter] for letter in range(start, end)} - {-1}:
            if not special[place]:
                places[number] = place
    return places


def tokens_of_letters(
    offsets: Sequence[tuple[int, int]], texts: Sequence[int | None], start: int, end: int
) -> tuple[int, int]:
    """The first and the last token of the second text with letters from start to before end; (-1, -1) if any is cut.

    offsets: letters of each token. texts: 0 or 1, which of the two texts a token is of; None for special ones.
    """
    found = [
        place
        for place, ((begins, ends), text) in enumerate(zip(offsets, texts, strict=True))
        if text == 1 and begins < end and ends > start
    ]
    whole = bool(found) and offsets[found[-1]][1] >= end
    return (found[0], found[-1]) if whole else (-1, -1)
