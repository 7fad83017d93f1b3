"""Samples whose targets are sequences of numbers, of different lengths: texts to be written, or those that are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ._dataset import innermost, is_in_memory, label_names
from .collation import Collate, collate
from .preparation import Prepared, pair

_NONE = -1  # behind a target's end


class SequenceTargets(Prepared):
    """`dataset`, ready to be read, with targets (symbols,) int64; of a batch (n, longest), filled up with -1."""

    def __init__(self, dataset: Any) -> None:
        super().__init__(dataset)
        self.classes: list[str] = []
        self.lengths, self.in_memory = innermost(dataset, "lengths"), is_in_memory(dataset)
        self._collate: Collate = innermost(dataset, "collate") or collate

    @property
    def targets(self) -> None:
        """None: they are no classes, nor of one length."""
        return None

    def collate(self, samples: list[tuple[Any, Any]]) -> tuple[Any, Any]:
        """A batch as `dataset` makes it, with its targets (n, longest)."""
        if not isinstance(samples[0][1], Tensor):  # what the dataset gives stays as it is
            return self._collate(samples)
        inputs, _ = self._collate([(sample, None) for sample, _ in samples])
        return inputs, pad_sequence([target for _, target in samples], batch_first=True, padding_value=_NONE)


@final
class WrittenTargets(SequenceTargets):
    """The texts to be written are the names of the dataset's classes: datasets number all texts beside their samples.

    encode: a text -> its numbers.
    """

    def __init__(self, dataset: Any, encode: Callable[[str], Tensor]) -> None:
        super().__init__(dataset)
        self._written = [encode(name) for name in label_names(dataset)]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        inputs, number = pair(self.dataset[index])
        return inputs, self._written[int(number)]


@final
class ReadTargets(SequenceTargets):
    """What is read is the target too, where there is no other: for models that go on with what they read."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        inputs, target = pair(self.dataset[index])
        return inputs, inputs["input_ids"] if target is None else target
