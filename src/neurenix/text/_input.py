"""What texts a set of weights was trained on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TextInput:
    """Longest sequence, in tokens with the special ones, and the tokenizer's files.

    files: names of the tokenizer's files beside the weights; those that exist are fetched with them.
    """

    max_length: int = 512
    files: tuple[str, ...] = (
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "vocab.json",
        "merges.txt",
    )
