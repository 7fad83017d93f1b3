"""A dataset of texts, tokenised once and kept in one flat array."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..data import Dataset, collate, label_names, sample_name
from ..data._dataset import innermost, known_targets
from ..data.preparation import pair
from ..errors import TextTooLongError, TruncatedTextWarning, UnreadableSampleError

_CHUNK = 2048  # texts tokenised at once


@final
@dataclass(frozen=True)
class Encoded:
    """Token numbers of some texts; `types` tells the first from the second text of pairs; `long` were cut."""

    ids: list[list[int]]
    types: list[list[int]] | None
    long: list[int]


class Tokenizing(Protocol):
    """What tokenising a dataset needs of a preprocessing."""

    max_length: int
    on_long: str
    pad_id: int

    def encode(self, texts: Sequence[Any]) -> Encoded:
        """Token numbers of many texts, cut to max_length."""
        ...

    def too_long(self, name: str) -> TextTooLongError:
        """The error for a text that may not be cut."""
        ...

    def accepts(self, raw: Any) -> bool:
        """Whether `raw` is a text."""
        ...


@final
class TokenizedDataset(Dataset):
    """`dataset` of texts as token numbers. `dataset[i]` is ({"input_ids": (t,), "attention_mask": (t,)},
    target).

    Every text is tokenised once, here. `lengths` lets a loader batch texts of similar length, and `collate`
    pads a batch to its own longest text. Texts that were cut are counted in one TruncatedTextWarning.
    lengths: (n,) tokens of each text, special ones included.
    """

    in_memory = True

    def __init__(self, dataset: Any, preprocess: Tokenizing) -> None:
        self.dataset, self.preprocess = dataset, preprocess
        self.classes, self.on_bad = label_names(dataset), innermost(dataset, "on_bad", "raise")
        self.truncated = 0
        self._bad: dict[int, str] = {}
        self._targets: list[Any] = []
        chunks = [self._encode(start) for start in range(0, len(dataset), _CHUNK)]
        self.lengths = np.asarray([len(ids) for chunk in chunks for ids in chunk.ids], dtype=np.int64)
        self._offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self._ids = _flat([chunk.ids for chunk in chunks])
        self._types = _flat([chunk.types or [[0] * len(ids) for ids in chunk.ids] for chunk in chunks])
        self._has_types = any(chunk.types for chunk in chunks)
        self._warn_of_truncation()

    def _encode(self, start: int) -> Encoded:
        """Token numbers of the texts from `start` on, one chunk of them."""
        texts = [self._read(index) for index in range(start, min(start + _CHUNK, len(self.dataset)))]
        encoded = self.preprocess.encode(texts)
        if encoded.long and self.preprocess.on_long == "raise":
            raise self.preprocess.too_long(self.sample_name(start + encoded.long[0]))
        self.truncated += len(encoded.long)
        return encoded

    def _read(self, index: int) -> Any:
        """The text of one sample; an empty one stands in for what cannot be read and may be skipped."""
        try:
            text, target = pair(self.dataset[index])
            if not self.preprocess.accepts(text):
                raise UnreadableSampleError(f"{self.sample_name(index)} holds {type(text).__name__}, not a text.")
        except UnreadableSampleError as error:
            if self.on_bad == "raise":
                raise
            self._bad[index] = str(error)
            text, target = "", None
        self._targets.append(target)
        return text

    def _warn_of_truncation(self) -> None:
        if self.truncated:
            warnings.warn(
                f"{self.truncated} of {len(self)} texts have more than {self.preprocess.max_length} tokens "
                "and lost their end. Load the model with a larger max_length, or use on_long='raise' to be "
                "told which.",
                TruncatedTextWarning,
                stacklevel=4,
            )

    @property
    def targets(self) -> np.ndarray | None:
        """Class numbers or values, one per text; None where a text has none."""
        known = known_targets(self.dataset)
        if known is None and self._targets and not any(target is None for target in self._targets):
            return np.asarray(self._targets)
        return known

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Any]:
        if index in self._bad:
            raise UnreadableSampleError(self._bad[index])
        place = slice(self._offsets[index], self._offsets[index + 1])
        sample = {"input_ids": torch.from_numpy(self._ids[place].astype(np.int64))}
        sample["attention_mask"] = torch.ones_like(sample["input_ids"])
        if self._has_types:
            sample["token_type_ids"] = torch.from_numpy(self._types[place].astype(np.int64))
        return sample, self._targets[index]

    def collate(self, samples: list[tuple[dict[str, Tensor], Any]]) -> tuple[dict[str, Tensor], Any]:
        """A batch (n, longest text of it): input_ids filled up with the padding token, all else with 0."""
        fill = {"input_ids": self.preprocess.pad_id}
        _, targets = collate([(0, target) for _, target in samples])
        inputs = {
            name: pad_sequence(
                [sample[name] for sample, _ in samples], batch_first=True, padding_value=fill.get(name, 0)
            )
            for name in samples[0][0]
        }
        return inputs, targets

    def sample_name(self, index: int) -> str:
        """The name that the text has in its dataset."""
        return sample_name(self.dataset, index)


def _flat(chunks: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
    """All numbers of all texts, one after another: (tokens,) int32."""
    return np.fromiter(chain.from_iterable(chain.from_iterable(chunks)), dtype=np.int32)
