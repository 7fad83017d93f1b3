"""What a model of word vectors reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import ConfigurationError
from ._ngrams import NGrams

if TYPE_CHECKING:
    from .word_preprocess import WordPreprocess


@dataclass(frozen=True, kw_only=True)
class WordInput:
    """Texts as whole words. max_length: words of a text that are read; there are no positions that would limit it."""

    files: ClassVar[tuple[str, ...]] = ()  # the vocabulary comes with the vectors
    max_length: int = 1024

    def open(self, trunk: Any, folder: Path | None, max_length: int | None) -> WordPreprocess | None:
        """Splitting by the trunk's own vocabulary (`vocabulary`, `ngrams`); None where it is empty."""
        from .word_preprocess import WordPreprocess

        if max_length is not None and (isinstance(max_length, bool) or not isinstance(max_length, int)):
            raise ConfigurationError(f"max_length={max_length!r}; it is a number of words.")
        if not trunk.vocabulary.numel():
            return None
        words = trunk.vocabulary.numpy(force=True).tobytes().decode("utf-8").split("\n")
        shortest, longest, buckets = trunk.ngrams.tolist()
        return WordPreprocess(
            words,
            self.max_length if max_length is None else max_length,
            ngrams=NGrams(shortest=shortest, longest=longest, buckets=buckets),
        )
