"""From a text to the token numbers that weights expect."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from torch import Tensor

from ..data import PREPROCESSES, Dataset, report
from ..errors import ConfigurationError, TextTooLongError
from ..storage import check_hash, write_bytes
from ._targets import first_tokens, padded_targets, restored, tokens_of_letters
from ._tokenizers import TOKENIZER_FILE, open_tokenizer, padding_token
from .guard import check_tokens
from .tokenized import Encoded, TokenizedDataset

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Text = str | tuple[str, str]


@final
@PREPROCESSES.register("text")
class TextPreprocess:
    """One text, or a pair of texts, -> {"input_ids": (tokens,), "attention_mask": (tokens,)} int64.

    Pairs get "token_type_ids" too where the tokenizer tells the two texts apart.
    folder: holds tokenizer.json, or vocab.txt (WordPiece), or vocab.json with merges.txt (byte-level BPE).
    max_length: longest sequence, special tokens included.
    on_long: "truncate" cuts the end off, "raise" raises TextTooLongError.
    """

    reads: ClassVar[str] = "text"

    def __init__(self, folder: Path | str, max_length: int, on_long: str = "truncate") -> None:
        if on_long not in ("truncate", "raise"):
            raise ConfigurationError(f"on_long={on_long!r}; possible: 'truncate' (cut the end off), 'raise'.")
        self.max_length, self.on_long = max_length, on_long
        self._tokenizer = open_tokenizer(Path(folder))
        special = self._tokenizer.num_special_tokens_to_add(True)
        if max_length <= special:
            raise ConfigurationError(
                f"max_length={max_length} leaves no room for text beside {special} special tokens."
            )
        self._tokenizer.enable_truncation(max_length)
        self.pad_token, self.pad_id = padding_token(self._tokenizer, Path(folder))

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens; ids are smaller than this."""
        return int(self._tokenizer.get_vocab_size())

    def __call__(self, raw: Text) -> dict[str, Tensor]:
        """The token numbers of one text."""
        encoded = self.encode([raw])
        if encoded.long and self.on_long == "raise":
            raise self.too_long("this text")
        sample = {"input_ids": torch.tensor(encoded.ids[0])}
        sample["attention_mask"] = torch.ones_like(sample["input_ids"])
        if encoded.types is not None:
            sample["token_type_ids"] = torch.tensor(encoded.types[0])
        return sample

    def encode(self, texts: Sequence[Text]) -> Encoded:
        """Token numbers of many texts at once, cut to max_length, and which of them were cut."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        types = [encoding.type_ids for encoding in encodings] if any(isinstance(t, tuple) for t in texts) else None
        return Encoded(
            ids=[encoding.ids or [self.pad_id] for encoding in encodings],  # GPT-2's end of a text, for an empty one
            types=types if types and any(map(any, types)) else None,
            long=[place for place, encoding in enumerate(encodings) if encoding.overflowing],
        )

    def encode_many(self, texts: Sequence[Text]) -> list[Tensor]:
        """Token numbers (tokens,) of each text, cut to max_length."""
        return [torch.tensor(ids) for ids in self.encode(texts).ids]

    def encode_targets(self, texts: Sequence[Text]) -> Tensor:
        """Token numbers of target texts (n, longest), padded with -100: what the losses of language heads take."""
        return padded_targets(self.encode(texts).ids)

    def word_places(self, texts: Sequence[str]) -> list[list[int]]:
        """For each word of each text, as blanks separate them, the place of its first token; -1 where it was cut."""
        return [
            first_tokens(text, encoding.offsets, encoding.special_tokens_mask)
            for text, encoding in zip(texts, self._tokenizer.encode_batch(list(texts)), strict=True)
        ]

    def spans(self, pairs: Sequence[tuple[str, str]], letters: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """The first and the last token of a part of each pair's second text; (-1, -1) where some of it was cut off.

        letters: of the part, from start to before end.
        """
        encodings = self._tokenizer.encode_batch(list(pairs))
        return [
            tokens_of_letters(encoding.offsets, encoding.sequence_ids, start, end)
            for encoding, (start, end) in zip(encodings, letters, strict=True)
        ]

    def part(self, texts: tuple[str, str], first: int, last: int) -> str:
        """The part of a pair's second text that these tokens are."""
        offsets = self._tokenizer.encode(*texts).offsets
        return texts[1][offsets[first][0] : offsets[last][1]].strip()

    def words(self, text: str) -> list[int]:
        """Token numbers of a text, without those that the tokenizer puts around it."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token numbers, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def restore(self, outputs: Any, inputs: Any) -> Any:
        """A head's answers in the terms of what was read: the texts of tokens."""
        return restored(outputs, self.decode)

    def too_long(self, name: str) -> TextTooLongError:
        """The error for a text that may not be cut."""
        return TextTooLongError(
            f"{name} has more than max_length={self.max_length} tokens; shorten it, load the model with a "
            "larger max_length, or allow on_long='truncate'."
        )

    def accepts(self, raw: Any) -> bool:
        """Whether `raw` is a text or a pair of texts."""
        pair = isinstance(raw, tuple) and len(raw) == 2 and all(isinstance(part, str) for part in raw)
        return isinstance(raw, str) or pair

    def wrap(self, dataset: Any, training: bool) -> Dataset:
        """`dataset` of texts, tokenised once; training changes nothing."""
        return TokenizedDataset(dataset, self)

    def check(self, inputs: Any) -> None:
        """Raise InputMismatchError when a batch holds unknown tokens, or more than max_length of them."""
        report(check_tokens(inputs, self.vocabulary_size, self.max_length))

    def save(self, folder: Path) -> dict[str, str]:
        """Write the whole tokenizer into `folder`; returns the file's name and SHA-256."""
        content = _serialized(self._tokenizer)
        write_bytes(folder / TOKENIZER_FILE, content)
        return {"file": TOKENIZER_FILE, "sha256": hashlib.sha256(content).hexdigest()}

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON values; save() writes the tokenizer that they name by its hash."""
        return {
            "kind": "text",
            "max_length": self.max_length,
            "on_long": self.on_long,
            "pad_token": self.pad_token,
            "sha256": hashlib.sha256(_serialized(self._tokenizer)).hexdigest(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path) -> TextPreprocess:
        """What to_json described, with the tokenizer that save() wrote into `folder`; its hash is checked."""
        content = (folder / TOKENIZER_FILE).read_bytes()
        check_hash(folder / TOKENIZER_FILE, hashlib.sha256(content).hexdigest(), values["sha256"])
        loaded = cls(folder, int(values["max_length"]), values["on_long"])
        loaded.pad_token = values["pad_token"]
        loaded.pad_id = int(loaded._tokenizer.token_to_id(loaded.pad_token) or 0)
        return loaded


def _serialized(tokenizer: Tokenizer) -> bytes:
    return str(tokenizer.to_str(pretty=False)).encode()
