"""Samples whose targets are texts, as the numbers that a model writes them in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ._dataset import innermost, label_names
from .collation import Collate, collate
from .preparation import Prepared, pair

_NONE = -1  # behind a target's end


@final
class WrittenTargets(Prepared):
    """`dataset`, whose class names are the texts to be written, with each text as numbers (symbols,) int64.

    Datasets number texts as they number the names of classes; here the names are what counts. A batch's targets are
    (n, longest), filled up with -1.
    encode: a text -> its numbers.
    """

    def __init__(self, dataset: Any, encode: Callable[[str], Tensor]) -> None:
        super().__init__(dataset)
        self._written = [encode(name) for name in label_names(dataset)]
        self.classes = []
        self.lengths = innermost(dataset, "lengths")
        self._collate: Collate = innermost(dataset, "collate") or collate

    @property
    def targets(self) -> None:
        """None: they are no classes, nor of one length."""
        return None

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        inputs, number = pair(self.dataset[index])
        return inputs, self._written[int(number)]

    def collate(self, samples: list[tuple[Any, Any]]) -> tuple[Any, Any]:
        """A batch as `dataset` makes it, with its targets (n, longest)."""
        inputs, _ = self._collate([(sample, None) for sample, _ in samples])
        return inputs, pad_sequence([target for _, target in samples], batch_first=True, padding_value=_NONE)
