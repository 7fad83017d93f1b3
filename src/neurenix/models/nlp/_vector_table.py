"""Words and their vectors, gathered row by row from a file and checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch

from .._records import StateDict
from ._vector_stream import VectorStream

MOST_WORDS, MOST_NUMBERS = 50_000_000, 10_000
LONGEST_WORD = 4096  # bytes
_BLOCK = 1024  # rows


@final
class VectorTable:
    """The rows of one file. Raises DamagedFileError, naming the row, for what cannot be a word or a vector.

    width: numbers of a row. rows: of which the memory is taken at once, where the file says how many it has.
    """

    def __init__(self, stream: VectorStream, width: int, rows: int = _BLOCK) -> None:
        self.width, self.words = width, list[bytes]()
        self._stream = stream
        self._values = np.empty((rows, width), dtype=np.float32)
        self._rows = 0

    def add(self, words: Sequence[bytes], values: np.ndarray) -> None:
        """values: (words, width)"""
        end = self._rows + len(values)
        if end > len(self._values):
            self._values.resize((max(end, 2 * len(self._values)), self.width), refcheck=False)
        self._values[self._rows : end] = values
        self._rows = end
        self.words += words

    def state(self, ngrams: Sequence[int] = (0, 0, 0), *, spoilt: int = 0) -> StateDict:
        """The tensors of a WordVectors trunk.

        ngrams: shortest, longest, buckets, whose rows follow those of the words.
        spoilt: words in a thousand that may be no UTF-8; they keep their rows under a name that no text has.
        """
        self._values.resize((self._rows, self.width), refcheck=False)
        return {
            "embedding.weight": torch.from_numpy(self._values),
            "vocabulary": torch.frombuffer(bytearray(self._vocabulary(spoilt)), dtype=torch.uint8),
            "ngrams": torch.tensor(list(ngrams)),
        }

    def _vocabulary(self, spoilt: int) -> bytes:
        if not self.words:
            raise self._stream.damaged("it has no words")
        allowed = len(self.words) * spoilt // 1000
        for row, word in enumerate(self.words):
            if not word or b"\n" in word:
                raise self._stream.damaged(
                    f"the word of row {row} is {word[:60]!r}, and one without a line break is needed"
                )
            if not word.isascii() and not _is_text(word):
                allowed -= 1
                if allowed < 0:
                    raise self._stream.damaged(f"the word of row {row}, {word[:60]!r}, is no UTF-8")
                self.words[row] = b"\xef\xbf\xbd" + str(row).encode()  # the sign for what cannot be read
        if len(set(self.words)) < len(self.words):
            raise self._stream.damaged(self._repeated())
        return b"\n".join(self.words)

    def _repeated(self) -> str:
        first: dict[bytes, int] = {}
        for row, word in enumerate(self.words):
            if first.setdefault(word, row) != row:
                return f"{word.decode('utf-8', 'replace')[:60]!r} is the word of row {first[word]} and of row {row}"
        return ""


def _is_text(word: bytes) -> bool:
    try:
        word.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
