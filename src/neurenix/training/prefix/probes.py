"""A few samples as they were when their rows were stored, read again later: data may change, or be random unseen.

A transform with a generator of its own draws from none that can be watched, and a callback may change the data between
two epochs. Where either is found out, nothing that was stored is right any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from ...data import Batch, DataLoader
from ...errors import NeurenixError

_KEPT, _ROOM = 8, 64 * 2**20  # samples, spread over the dataset, and bytes of theirs
_AT_FIRST, _LATER = 4, 1  # samples that are read again in the first epoch of stored rows, and in each one after it


@final
class Probes:
    """Samples of a loader's batches, by their places in the dataset."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader, self._room = loader, float(_ROOM)
        last = len(loader.dataset) - 1
        self._wanted = set(torch.linspace(0, last, min(_KEPT, last + 1)).round().long().tolist())
        self._kept: dict[int, dict[str, Tensor]] = {}
        self._turn = 0

    def note(self, batch: Batch) -> None:
        """Keep those of a batch that are wanted, once each, while there is room for them."""
        for row, index in enumerate(batch.indices.tolist()):
            if index in self._wanted and index not in self._kept:
                one = batch.parts(1)[row]
                self._room -= one.nbytes
                if self._room > 0:
                    self._kept[index] = _named(one)

    def read(self, epoch: int) -> None:
        """Keep them as an epoch sees them, where its batches do not pass by."""
        self.note(self._loader.of(torch.tensor(sorted(self._wanted)), epoch))

    def differ(self, epoch: int) -> bool:
        """Whether some of them, read once more as an epoch sees them, are other than they were.

        Not where they can no longer be read: rows are all that is needed of them.
        """
        places = list(self._kept)
        count = min(_LATER if self._turn else _AT_FIRST, len(places))
        chosen = [places[(self._turn + step) % len(places)] for step in range(count)]
        self._turn += count
        if not chosen:
            return False
        try:
            found = self._loader.of(torch.tensor(chosen), epoch)
        except NeurenixError:
            return False
        alone = found.parts(1) if len(found) else []
        return any(not _same(self._kept[int(one.indices)], _named(one)) for one in alone)


def _named(one: Batch) -> dict[str, Tensor]:
    """Copies of the tensors of a batch of one sample."""
    found: dict[str, Tensor] = {}
    for kind, part in (("input", one.inputs), ("target", one.targets)):
        tensors: Mapping[str, Tensor | None] = part if isinstance(part, Mapping) else {"": part}
        found |= {f"{kind}.{name}": tensor.clone() for name, tensor in tensors.items() if tensor is not None}
    return found


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Bit for bit; what one of them is longer by is how far it was filled up in its batch."""
    return one.keys() == other.keys() and all(_begins_alike(one[name], other[name]) for name in one)


def _begins_alike(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.ndim != other.ndim:
        return False
    common = tuple(slice(min(sizes)) for sizes in zip(one.shape, other.shape, strict=True))
    first, second = (tensor[common].contiguous().flatten() for tensor in (one, other))
    return torch.equal(first.view(torch.uint8), second.view(torch.uint8))  # of numbers, NaN would differ from itself
