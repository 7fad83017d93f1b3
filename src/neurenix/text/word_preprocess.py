"""From a text to the rows of a table of word vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..data import PREPROCESSES, Dataset, Finding, collate, report
from ..data.preparation import Prepared
from ..errors import ConfigurationError, TextTooLongError
from ..storage import check_hash, write_bytes
from ._ngrams import NGrams, bucket_numbers
from ._words import Vocabulary
from .tokenized import Encoded, TokenizedDataset

WORDS_FILE = "words.txt"
_BLOCK = 4096  # words that are hashed at once
_NONE = NGrams(shortest=0, longest=0, buckets=0)


@final
@PREPROCESSES.register("words")
class WordPreprocess:
    """One text -> {"input_ids": (words,) or (words, rows), "attention_mask": (words,)} int64.

    Without n-grams, input_ids are the rows of the text's words, and unknown words are left out. With n-grams each word
    is a bag of rows, its own and those of its n-grams, filled up with -1; an unknown word has those of its n-grams. A
    text without any known word has no rows, and its pooled features are 0.

    words: one for each of the first rows of the table, none twice, none with a line break.
    max_length: words of a text that are read.
    on_long: "truncate" cuts the end off, "raise" raises TextTooLongError.
    ngrams: whose buckets follow the words in the table.
    """

    reads: ClassVar[str] = "text"
    pad_id = -1

    def __init__(
        self, words: Sequence[str], max_length: int, on_long: str = "truncate", ngrams: NGrams = _NONE
    ) -> None:
        if on_long not in ("truncate", "raise"):
            raise ConfigurationError(f"on_long={on_long!r}; possible: 'truncate' (cut the end off), 'raise'.")
        if max_length < 1:
            raise ConfigurationError(f"max_length={max_length}; it is a number of words, at least 1.")
        self.vocabulary = Vocabulary(words)
        self.max_length, self.on_long, self.ngrams = max_length, on_long, ngrams

    @property
    def rows(self) -> int:
        """Rows of the table: words and buckets; ids are smaller than this."""
        return len(self.vocabulary) + (self.ngrams.buckets if self.ngrams else 0)

    def __call__(self, raw: str) -> dict[str, Tensor]:
        """The rows of one text."""
        words, long = self._cut(self.words_of(raw))
        if long and self.on_long == "raise":
            raise self.too_long("this text")
        return _sample(self.bags(words))

    def words_of(self, text: str) -> list[str]:
        """The words of a text that have a vector, from left to right."""
        number = self.vocabulary.number
        return [word for word in self.vocabulary.split(text) if word in number or self.ngrams.has(word)]

    def bags(self, words: Sequence[str]) -> np.ndarray:
        """Rows of words that have a vector: (words,) int64; with n-grams (words, rows), filled up with -1."""
        own = np.array([self.vocabulary.number.get(word, -1) for word in words], dtype=np.int64)
        if not self.ngrams:
            return own
        buckets = bucket_numbers(words, self.ngrams)
        buckets[buckets >= 0] += len(self.vocabulary)
        unknown = own < 0
        bags = np.concatenate([own[:, None], buckets], axis=1)
        bags[unknown] = np.roll(bags[unknown], -1, axis=1)  # what is filled up stands at the end
        return bags

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Numbers of the known words of many texts, cut to max_length, and which of them were cut."""
        cut = [self._cut(self.words_of(text)) for text in texts]
        number = self.vocabulary.number
        return Encoded(
            ids=[[number[word] for word in words if word in number] for words, _ in cut],
            types=None,
            long=[place for place, (_, long) in enumerate(cut) if long],
        )

    def _cut(self, words: list[str]) -> tuple[list[str], bool]:
        return words[: self.max_length], len(words) > self.max_length

    def too_long(self, name: str) -> TextTooLongError:
        """The error for a text that may not be cut."""
        return TextTooLongError(
            f"{name} has more than max_length={self.max_length} words; shorten it, load the model with a larger "
            "max_length, or allow on_long='truncate'."
        )

    def accepts(self, raw: Any) -> bool:
        """Whether `raw` is a text."""
        return isinstance(raw, str)

    def wrap(self, dataset: Any, training: bool) -> Dataset:
        """`dataset` of texts, split into words once; training changes nothing."""
        return BagDataset(dataset, self) if self.ngrams else TokenizedDataset(dataset, self)

    def check(self, inputs: Any) -> None:
        """Raise InputMismatchError when a batch holds no rows of this table."""
        report(_check_rows(inputs, 3 if self.ngrams else 2, self.rows))

    def save(self, folder: Path) -> dict[str, str]:
        """Write the vocabulary into `folder`, one word a line; returns the file's name and SHA-256."""
        content = self._content()
        write_bytes(folder / WORDS_FILE, content)
        return {"file": WORDS_FILE, "sha256": hashlib.sha256(content).hexdigest()}

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON values; save() writes the vocabulary that they name by its hash."""
        return {
            "kind": "words",
            "max_length": self.max_length,
            "on_long": self.on_long,
            "ngrams": [self.ngrams.shortest, self.ngrams.longest, self.ngrams.buckets],
            "sha256": hashlib.sha256(self._content()).hexdigest(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path) -> WordPreprocess:
        """What to_json described, with the vocabulary that save() wrote into `folder`; its hash is checked."""
        content = (folder / WORDS_FILE).read_bytes()
        check_hash(folder / WORDS_FILE, hashlib.sha256(content).hexdigest(), values["sha256"])
        shortest, longest, buckets = (int(value) for value in values["ngrams"])
        ngrams = NGrams(shortest=shortest, longest=longest, buckets=buckets)
        return cls(content.decode().split("\n"), int(values["max_length"]), values["on_long"], ngrams)

    def _content(self) -> bytes:
        return "\n".join(self.vocabulary.words).encode()


@final
class BagDataset(Prepared):
    """`dataset` of texts as bags of rows. `dataset[i]` is ({"input_ids": (t, rows), "attention_mask": (t,)}, target).

    Each distinct word is hashed once. `collate` pads a batch to its own longest text and largest bag.
    lengths: (n,) words of each text.
    """

    in_memory = True

    def __init__(self, dataset: Any, preprocess: WordPreprocess) -> None:
        numbering = _Numbering(preprocess)
        super().__init__(TokenizedDataset(dataset, numbering))
        self.lengths = self.dataset.lengths
        words = list(numbering.number)
        blocks = [preprocess.bags(words[start : start + _BLOCK]) for start in range(0, len(words), _BLOCK)]
        self._sizes = np.concatenate([np.zeros(0, np.int64), *((block >= 0).sum(1) for block in blocks)])
        self._ends = np.cumsum(self._sizes)
        self._rows = np.concatenate([np.zeros(0, np.int32), *(block[block >= 0].astype(np.int32) for block in blocks)])

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Any]:
        inputs, target = self.dataset[index]
        return {**inputs, "input_ids": self._bags(inputs["input_ids"].numpy())}, target

    def collate(self, samples: list[tuple[dict[str, Tensor], Any]]) -> tuple[dict[str, Tensor], Any]:
        """A batch (n, longest text, largest bag): input_ids filled up with -1, the mask with 0."""
        longest = max(len(inputs["attention_mask"]) for inputs, _ in samples)
        widest = max(inputs["input_ids"].shape[1] for inputs, _ in samples)
        ids = torch.full((len(samples), longest, widest), -1)
        for row, (inputs, _) in enumerate(samples):
            words, width = inputs["input_ids"].shape
            ids[row, :words, :width] = inputs["input_ids"]
        mask = pad_sequence([inputs["attention_mask"] for inputs, _ in samples], batch_first=True)
        _, targets = collate([(0, target) for _, target in samples])
        return {"input_ids": ids, "attention_mask": mask}, targets

    def _bags(self, numbers: np.ndarray) -> Tensor:
        """(words,) numbers of distinct words -> (words, rows), filled up with -1."""
        sizes = self._sizes[numbers]
        bags = np.full((len(numbers), max(1, int(sizes.max(initial=0)))), -1, dtype=np.int64)
        for bag, size, end in zip(bags, sizes, self._ends[numbers], strict=True):
            bag[:size] = self._rows[end - size : end]
        return torch.from_numpy(bags)


@final
class _Numbering:
    """Numbers for the distinct words of one dataset, in the order in which they are met."""

    pad_id = -1

    def __init__(self, preprocess: WordPreprocess) -> None:
        self.number: dict[str, int] = {}
        self.max_length, self.on_long = preprocess.max_length, preprocess.on_long
        self._preprocess = preprocess

    def encode(self, texts: Sequence[str]) -> Encoded:
        cut = [self._preprocess._cut(self._preprocess.words_of(text)) for text in texts]
        ids = [[self.number.setdefault(word, len(self.number)) for word in words] for words, _ in cut]
        return Encoded(ids=ids, types=None, long=[place for place, (_, long) in enumerate(cut) if long])

    def too_long(self, name: str) -> TextTooLongError:
        return self._preprocess.too_long(name)

    def accepts(self, raw: Any) -> bool:
        return self._preprocess.accepts(raw)


def _sample(rows: np.ndarray) -> dict[str, Tensor]:
    ids = torch.from_numpy(rows)
    return {"input_ids": ids, "attention_mask": torch.ones(len(ids), dtype=torch.int64)}


def _check_rows(inputs: Any, dimensions: int, rows: int) -> list[Finding]:
    """What does not fit in a batch of rows; empty when all is well."""
    ids = inputs.get("input_ids") if isinstance(inputs, Mapping) else None
    form = "(n, words)" if dimensions == 2 else "(n, words, rows of a word)"
    if not isinstance(ids, Tensor) or ids.ndim != dimensions or ids.is_floating_point():
        got = type(inputs).__name__ if ids is None else f"{ids.dtype} of shape {tuple(ids.shape)}"
        words = (
            f"texts have to be whole numbers {{'input_ids': {form}, 'attention_mask': (n, words)}}; the first batch is "
            f"{got}. Pass the texts themselves, or what model.preprocess makes of them."
        )
        return [Finding("layout", True, words)]
    mask = inputs.get("attention_mask")
    if mask is not None and mask.shape != ids.shape[:2]:
        words = f"attention_mask {tuple(mask.shape)} and input_ids {tuple(ids.shape)} are not of the same words."
        return [Finding("mask", True, words)]
    low, high = (int(ids.min()), int(ids.max())) if ids.numel() else (0, 0)
    if low >= -1 and high < rows:
        return []
    words = f"rows go from {low} to {high}, but the table has {rows}; the texts were split for another model."
    return [Finding("vocabulary", True, words)]
