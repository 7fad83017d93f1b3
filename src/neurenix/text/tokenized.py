"""A dataset of texts, tokenised once and kept in one flat array."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import torch
from torch import Tensor

from ..data import Dataset, collate, sample_name
from ..data.preparation import pair, wrapped_labels
from ..errors import InputMismatchError, TextTooLongError, TruncatedTextWarning, UnreadableSampleError

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
    """`dataset` of texts as token numbers. `dataset[i]` is ({"input_ids": (t,), "attention_mask": (t,)}, target).

    Every text is tokenised once, here. `lengths` lets a loader batch texts of similar length, and `collate` pads a
    batch to its own longest text. Texts that were cut are counted in one TruncatedTextWarning.
    lengths: (n,) tokens of each text; 0 for a text that cannot be read where the dataset says on_bad="skip".
    """

    in_memory = True

    def __init__(self, dataset: Any, preprocess: Tokenizing) -> None:
        self.dataset, self.preprocess = dataset, preprocess
        self.classes, self.on_bad = wrapped_labels(dataset)
        self.truncated = 0
        self._bad: dict[int, str] = {}
        self._read_all()
        self._offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        if self.truncated:
            warnings.warn(
                f"{self.truncated} of {len(dataset)} texts have more than {preprocess.max_length} tokens and lost their "
                "end; load the model with a larger max_length, or pass on_long='raise' to be told which.",
                TruncatedTextWarning,
                stacklevel=2,
            )

    def _read_all(self) -> None:
        ids: list[np.ndarray] = []
        types: list[np.ndarray] = []
        lengths: list[int] = []
        self._targets_read: list[Any] = []
        for start in range(0, len(self.dataset), _CHUNK):
            encoded = self.preprocess.encode(self._texts(range(start, min(start + _CHUNK, len(self.dataset)))))
            self._count_long(start, encoded.long)
            lengths += [len(x) for x in encoded.ids]
            ids.append(_flat(encoded.ids))
            types.append(_flat(encoded.types) if encoded.types else np.zeros_like(ids[-1]))
        self.lengths = np.asarray(lengths, dtype=np.int64)
        for index in self._bad:
            raise NotImplementedError
        self._ids, self._types = np.concatenate(ids), np.concatenate(types)
