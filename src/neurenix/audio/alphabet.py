"""The symbols that a network writes what it hears in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigurationError, DamagedFileError, LabelMismatchError


@dataclass(frozen=True, kw_only=True)
class Alphabet:
    """Symbols by number, one of them the blank, which is no character.

    space: the symbol that stands between words. Symbols in angle brackets ("<s>") are no characters either.
    Raises ConfigurationError for symbols that occur twice, are empty or hold a line's end, and a blank that is none.
    """

    symbols: tuple[str, ...]
    blank: int = 0
    space: str = " "

    def __post_init__(self) -> None:
        twice = sorted(symbol for symbol, count in Counter(self.symbols).items() if count > 1)
        wrong = [symbol for symbol in (*self.symbols, self.space) if not symbol or "\n" in symbol]
        if twice or wrong:
            raise ConfigurationError(f"symbols are different from each other and not empty; wrong are {twice + wrong}.")
        if not 0 <= self.blank < len(self.symbols):
            raise ConfigurationError(f"blank={self.blank}; it is the number of one of {len(self.symbols)} symbols.")

    def encode(self, text: str) -> Tensor:
        """The numbers of a text's characters, (characters,) int64. Letters take the case that the symbols have.

        Raises LabelMismatchError for characters that no symbol stands for.
        """
        numbers = {self._character(number): number for number in range(len(self.symbols))}
        numbers.pop("", None)
        found = [next((numbers[form] for form in _forms(character) if form in numbers), None) for character in text]
        unknown = sorted({character for character, number in zip(text, found, strict=True) if number is None})
        if unknown:
            raise LabelMismatchError(
                f"no symbol stands for {', '.join(map(repr, unknown))} in {text[:60]!r}; possible are "
                f"{' '.join(map(repr, numbers))}. Write the text in these, or leave out what is not spoken."
            )
        return torch.tensor(found, dtype=torch.int64)

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of some symbols, without spaces at its ends."""
        return "".join(self._character(number) for number in numbers).strip()

    def to_tensor(self) -> Tensor:
        """As bytes, (bytes,) uint8: UTF-8, a line for the blank's number, one for the space, then a symbol a line."""
        lines = [str(self.blank), self.space, *self.symbols]
        return torch.tensor(list("\n".join(lines).encode()), dtype=torch.uint8)

    @classmethod
    def from_tensor(cls, written: Tensor) -> Alphabet:
        """What to_tensor wrote. Raises DamagedFileError for anything else."""
        try:
            blank, space, *symbols = bytes(written.tolist()).decode().split("\n")
            return cls(symbols=tuple(symbols), blank=int(blank), space=space)
        except (ValueError, TypeError) as error:
            raise DamagedFileError(f"the file's symbols cannot be read ({error}); fetch or save it again.") from error

    def _character(self, number: int) -> str:
        symbol = self.symbols[number]
        if number == self.blank or (len(symbol) > 2 and symbol[0] == "<" and symbol[-1] == ">"):
            return ""
        return " " if symbol == self.space else symbol


def _forms(character: str) -> tuple[str, str, str]:
    return character, character.upper(), character.lower()
