"""Letter n-grams of words and the rows in which fastText keeps their vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

END_OF_SENTENCE = "</s>"  # fastText's own token, which has no n-grams
_OFFSET, _PRIME = np.uint32(2166136261), np.uint32(16777619)  # FNV-1a with 32 bits
_LONGEST_WORD = 200  # letters; of longer ones, addresses for instance, the n-grams of the first are taken


@dataclass(frozen=True, kw_only=True)
class NGrams:
    """Which n-grams of letters a model knows. buckets: rows that all of them share, by their hash.

    Bojanowski et al., Enriching Word Vectors with Subword Information, TACL 2017, section 3.2.
    """

    shortest: int
    longest: int
    buckets: int

    def __bool__(self) -> bool:
        return self.longest > 0 and self.buckets > 0

    def has(self, word: str) -> bool:
        """Whether the word, written between < and >, is long enough for one n-gram."""
        return bool(self) and word != END_OF_SENTENCE and bool(word) and len(word) + 2 >= self.shortest


def bucket_numbers(words: Sequence[str], ngrams: NGrams) -> np.ndarray:
    """Buckets of the n-grams of each word: (words, most n-grams of one) int64, filled up with -1 from the right.

    The hash is FNV-1a over the bytes of UTF-8, each taken as a signed number first, as fastText's tool does.
    """
    bounded = [f"<{word[:_LONGEST_WORD]}>" if ngrams.has(word) else "" for word in words]
    letters = np.array([len(word) for word in bounded], dtype=np.int64)
    encoded = _bytes(bounded, int(letters.max(initial=0)))
    columns = [np.full((len(words), 0), -1, dtype=np.int64)]
    for length, hashes in _hashes(encoded, ngrams.longest):
        if length < ngrams.shortest:
            continue
        starts = np.arange(hashes.shape[1])
        exists = starts + length <= letters[:, None]
        if length == 1:  # < and > alone are none
            exists &= (starts > 0) & (starts < letters[:, None] - 1)
        columns.append(np.where(exists, hashes.astype(np.int64) % max(1, ngrams.buckets), -1))
    return _to_the_left(np.concatenate(columns, axis=1))


def _bytes(words: Sequence[str], longest: int) -> np.ndarray:
    """(words, letters, 4) int16: the bytes of each letter as signed numbers, 999 where a letter has fewer."""
    encoded = np.full((len(words), longest, 4), 999, dtype=np.int16)
    for row, word in enumerate(words):
        if word.isascii():
            encoded[row, : len(word), 0] = np.frombuffer(word.encode(), dtype=np.int8)
            continue
        for place, letter in enumerate(word):
            values = np.frombuffer(letter.encode("utf-8", "replace"), dtype=np.int8)
            encoded[row, place, : len(values)] = values
    return encoded


def _hashes(encoded: np.ndarray, longest: int) -> Iterator[tuple[int, np.ndarray]]:
    """(n, hashes (words, places) of the n letters from each place on), for n from 1 to `longest`."""
    words, letters, _ = encoded.shape
    running = np.full((words, letters), _OFFSET, dtype=np.uint32)
    for length in range(1, min(longest, letters) + 1):
        running = running[:, : letters - length + 1]
        last = encoded[:, length - 1 :]
        for part in range(4):
            value = last[:, :, part]
            hashed = (running ^ value.astype(np.int32).view(np.uint32)) * _PRIME
            running = np.where(value == 999, running, hashed)
        yield length, running


def _to_the_left(numbers: np.ndarray) -> np.ndarray:
    """Rows with their -1 moved to the end and the columns cut that hold nothing else."""
    order = np.argsort(numbers < 0, axis=1, kind="stable")
    moved = np.take_along_axis(numbers, order, axis=1)
    return moved[:, : int((moved >= 0).sum(axis=1).max(initial=0))]
