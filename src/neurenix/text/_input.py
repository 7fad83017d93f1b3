"""What texts a set of weights was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from .preprocess import TextPreprocess

_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")


@dataclass(frozen=True, kw_only=True)
class TextInput:
    """Longest sequence, in tokens with the special ones, and the tokenizer's files.

    files: names of the tokenizer's files beside the weights; those that exist are fetched with them.
    """

    max_length: int = 512
    files: tuple[str, ...] = (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "vocab.json",
        "merges.txt",
    )

    def open(self, trunk: Any, folder: Path | None, max_length: int | None) -> TextPreprocess | None:
        """The tokenizer in `folder`, None where there is none. trunk.max_length: positions that it has."""
        from .preprocess import TextPreprocess

        limit = text_limit(max_length, self.max_length, int(trunk.max_length))
        if folder is None or not any((folder / name).is_file() for name in _TOKENIZERS):
            return None
        return TextPreprocess(folder, max_length=limit)


def text_limit(max_length: int | None, expected: int, positions: int) -> int:
    """The tokenizer's limit: as asked for, else as the weights expect, never above the model's positions."""
    if max_length is None:
        return min(expected, positions)
    if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 3:
        raise ConfigurationError(
            f"max_length={max_length!r}; it is a number of tokens, at least 3 (a token between the two special ones)."
        )
    if max_length > positions:
        raise ConfigurationError(
            f"max_length={max_length}, but the model has positions for {positions} tokens; use at most {positions}."
        )
    return max_length
