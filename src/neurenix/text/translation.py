"""Texts of two languages as Marian's translation models read them: two SentencePiece models, one vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from ..data import PREPROCESSES, Dataset, report
from ..errors import ConfigurationError, DamagedFileError, TextTooLongError
from ..packages import require
from ..storage import read_tensors, write_tensors
from ._input import text_limit
from ._targets import padded_targets, restored
from .guard import check_tokens
from .tokenized import Encoded, TokenizedDataset

SOURCE, TARGET, VOCABULARY = "source.spm", "target.spm", "vocab.json"
_FILES = (SOURCE, TARGET, VOCABULARY)
_SAVED = "tokenizer.safetensors"
_END, _UNKNOWN, _PADDING = "</s>", "<unk>", "<pad>"
_SPACE = "\u2581"  # how SentencePiece writes a space


@dataclass(frozen=True, kw_only=True)
class TranslationInput:
    """Longest sequence, in tokens with the one that ends it, and the tokenizer's files."""

    max_length: int = 512
    files: tuple[str, ...] = ("config.json", *_FILES)

    def open(self, trunk: Any, folder: Path | None, max_length: int | None) -> TranslationPreprocess | None:
        """The tokenizer in `folder`, None where a file of it is missing. trunk.max_length: positions that it has."""
        limit = text_limit(max_length, self.max_length, int(trunk.max_length))
        if folder is None or not all((folder / name).is_file() for name in _FILES):
            return None
        return TranslationPreprocess({name: (folder / name).read_bytes() for name in _FILES}, max_length=limit)


@final
@PREPROCESSES.register("translation")
class TranslationPreprocess:
    """One text of the source language -> {"input_ids": (tokens,), "attention_mask": (tokens,)} int64.

    Models of several target languages read the language in front, as ">>fra<< How are you?". The names of special
    tokens are text like any other: no input can end a sequence.
    files: the content of source.spm, target.spm and vocab.json. max_length: longest sequence, its end included.
    on_long: "truncate" cuts the end off, "raise" raises TextTooLongError.
    """

    reads: ClassVar[str] = "text"

    def __init__(self, files: Mapping[str, bytes], max_length: int, on_long: str = "truncate") -> None:
        if on_long not in ("truncate", "raise"):
            raise ConfigurationError(f"on_long={on_long!r}; possible: 'truncate' (cut the end off), 'raise'.")
        self.max_length, self.on_long = max_length, on_long
        self._files = dict(files)
        self._source, self._target = _pieces(self._files, SOURCE), _pieces(self._files, TARGET)
        self._numbers = _vocabulary(self._files[VOCABULARY])
        self._tokens = {number: token for token, number in self._numbers.items()}
        self._end, self._unknown = self._numbers[_END], self._numbers[_UNKNOWN]
        self.pad_token, self.pad_id = _PADDING, self._numbers[_PADDING]

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens; ids are smaller than this."""
        return max(self._tokens) + 1

    def __call__(self, raw: str) -> dict[str, Tensor]:
        """The token numbers of one text."""
        encoded = self.encode([raw])
        if encoded.long and self.on_long == "raise":
            raise self.too_long("this text")
        ids = torch.tensor(encoded.ids[0])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Token numbers of many texts of the source language, cut to max_length, and which of them were cut."""
        return self._encode(texts, self._source)

    def encode_many(self, texts: Sequence[str]) -> list[Tensor]:
        """Token numbers (tokens,) of each text of the source language, cut to max_length."""
        return [torch.tensor(ids) for ids in self.encode(texts).ids]

    def encode_targets(self, texts: Sequence[str]) -> Tensor:
        """Token numbers of translations (n, longest), padded with -100: the targets of the head's losses."""
        return padded_targets(self._encode(texts, self._target).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a translation's token numbers, without special tokens."""
        left_out = {self._end, self._unknown, self.pad_id}
        pieces = [self._tokens[number] for number in ids if number not in left_out and number in self._tokens]
        return str(self._source.decode_pieces(pieces)).replace(_SPACE, " ").strip()

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
        """Whether `raw` is a text."""
        return isinstance(raw, str)

    def wrap(self, dataset: Any, training: bool) -> Dataset:
        """`dataset` of texts, tokenised once; training changes nothing."""
        return TokenizedDataset(dataset, self)

    def check(self, inputs: Any) -> None:
        """Raise InputMismatchError when a batch holds unknown tokens, or more than max_length of them."""
        report(check_tokens(inputs, self.vocabulary_size, self.max_length))

    def save(self, folder: Path) -> dict[str, str]:
        """Write all three files as one into `folder`; returns its name and SHA-256."""
        tensors = {name: torch.from_numpy(np.frombuffer(self._files[name], np.uint8).copy()) for name in _FILES}
        return {"file": _SAVED, "sha256": write_tensors(folder / _SAVED, tensors)}

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON values; save() writes the tokenizer beside them."""
        return {"kind": "translation", "max_length": self.max_length, "on_long": self.on_long}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path) -> TranslationPreprocess:
        """What to_json described, with the tokenizer that save() wrote into `folder`."""
        tensors = read_tensors(folder / _SAVED)
        files = {name: tensors[name].numpy().tobytes() for name in _FILES}
        return cls(files, int(values["max_length"]), values["on_long"])

    def _encode(self, texts: Sequence[str], model: Any) -> Encoded:
        room = self.max_length - 1
        found = [self._numbered(text, model) for text in texts]
        return Encoded(
            ids=[[*ids[:room], self._end] for ids in found],
            types=None,
            long=[place for place, ids in enumerate(found) if len(ids) > room],
        )

    def _numbered(self, text: str, model: Any) -> list[int]:
        """The pieces' numbers; a language in front is a token of its own."""
        end = text.find("<<") if text.startswith(">>") else -1
        language, rest = ([text[: end + 2]], text[end + 2 :]) if end != -1 else ([], text)
        return [self._numbers.get(piece, self._unknown) for piece in (*language, *model.encode(rest, out_type=str))]


def _pieces(files: Mapping[str, bytes], name: str) -> Any:
    """The SentencePiece model of one language. Raises DamagedFileError where the bytes are none."""
    sentencepiece = require("sentencepiece", purpose="reading texts to translate")
    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=files[name])
    except (RuntimeError, OSError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{name} is no whole SentencePiece model ({error}); fetch it again.") from None
    if not files[name]:  # which the library takes for no model yet
        raise DamagedFileError(f"{name} is empty; fetch it again.")
    return model


def _vocabulary(content: bytes) -> dict[str, int]:
    """Token -> number. Raises DamagedFileError where the special ones are missing or numbers are none."""
    try:
        numbers = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{VOCABULARY} cannot be read ({error}); fetch it again.") from None
    whole = isinstance(numbers, dict) and all(type(number) is int and number >= 0 for number in numbers.values())
    missing = [token for token in (_END, _UNKNOWN, _PADDING) if not whole or token not in numbers]
    if missing:
        raise DamagedFileError(
            f"{VOCABULARY} is no vocabulary of a translation model: it has to number each token, with "
            f"{', '.join(missing)} among them."
        )
    return dict(numbers)
