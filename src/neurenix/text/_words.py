"""Words of a text, as a vocabulary of whole words knows them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import final

_PIECE = re.compile(r"(?:\w\.){2,}(?!\w)|\w+(?:[-'.,&@/:]\w+)*|[^\w\s]")  # u.s. | e-mail, don't, 3.5 | one mark
_CLITIC = re.compile(r"(?<=.)(?:n't|'(?:s|re|ve|ll|d|m))$", re.IGNORECASE)
_PART = re.compile(r"\d+(?:[.,]\d+)+(?!\w)|\w+|[^\w\s]")
_DIGIT = re.compile(r"\d")


@final
class Vocabulary:
    """Words with their numbers, and texts in these words.

    words: the most frequent first, no word twice.
    lower_case: there is no upper-case letter in any of them, so texts are written small before they are looked up.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.number = {word: number for number, word in enumerate(self.words)}
        self.lower_case = not any(word != word.lower() for word in self.words)
        self._masked_digits = "##" in self.number  # Google's news vectors write 1998 as ####
        self._plain_apostrophe = "’" not in self.number

    def __len__(self) -> int:
        return len(self.words)

    def split(self, text: str) -> list[str]:
        """The words of a text from left to right, each as the vocabulary writes it, or as it came if it is unknown.

        Compounds (e-mail, don't, 3.5, u.s.) are one word where the vocabulary has them, otherwise their parts.
        """
        text = text.lower() if self.lower_case else text
        text = text.replace("’", "'") if self._plain_apostrophe else text
        return [word for piece in _PIECE.findall(text) for word in self._parts(piece)]

    def _parts(self, piece: str) -> list[str]:
        known = self.find(piece)
        if known is not None:
            return [known]
        clitic = _CLITIC.search(piece)
        if clitic:
            return [*self._parts(piece[: clitic.start()]), self.find(clitic.group()) or clitic.group()]
        return [self.find(part) or part for part in _PART.findall(piece)]

    def find(self, word: str) -> str | None:
        """The word as the vocabulary writes it, in lower case or with # for digits if need be; None if unknown."""
        spellings = [word, word.lower()]
        if self._masked_digits:
            spellings.append(_DIGIT.sub("#", word))
        return next((spelling for spelling in spellings if spelling in self.number), None)
