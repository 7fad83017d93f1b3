"""Targets of samples whose inputs are not read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional

_PLAIN = ""  # the name of targets that are no mapping
_NO_LABEL = -1
_SMALL = (torch.uint8, torch.int16, torch.int32)  # each holds what those before it do


@final
class TargetRows:
    """Targets of `count` samples as batches bring them, tensors or mappings of tensors, in any other batches again.

    A tensor whose second dimension is filled up to the longest of its batch is filled up anew: labels and plain tensors
    by -1, others by 0, as TaskHead.losses has it. lengths: (count,) tokens, where targets (n, tokens) are as long as
    the longest text of a batch; None where they are not.
    """

    def __init__(self, count: int, lengths: Tensor | None = None) -> None:
        self._count, self._lengths = count, lengths
        self._tables: dict[str, _Table] = {}

    def put(self, places: Tensor, targets: Any) -> None:
        """Keep the targets (n, …) of a batch; None are none. places: (n,) of its samples."""
        if targets is None:
            return
        for name, rows in (targets if isinstance(targets, Mapping) else {_PLAIN: targets}).items():
            if name not in self._tables:
                filling = _NO_LABEL if name in (_PLAIN, "labels") else 0
                self._tables[name] = _Table(self._count, rows, filling)
            widths = None if self._lengths is None or name != _PLAIN else self._lengths[places]
            self._tables[name].put(places, rows.cpu(), widths)

    def get(self, places: Tensor) -> Any:
        """The targets of some samples as a batch; None where there are none."""
        found = {name: table.get(places) for name, table in self._tables.items()}
        return found[_PLAIN] if _PLAIN in found else found or None


@final
class _Table:
    """Rows of one tensor; the second dimension grows with the widest batch. Pixels' numbers lie in few bytes."""

    def __init__(self, count: int, like: Tensor, filling: int) -> None:
        self._dtype, self._filling = like.dtype, filling
        self._rows = torch.zeros(count, *like.shape[1:], dtype=_kept_as(like))
        self._widths = torch.zeros(count, dtype=torch.int64)

    def put(self, places: Tensor, rows: Tensor, widths: Tensor | None) -> None:
        """widths: (n,) of each row; None for that of the batch."""
        if self._rows.dtype != self._dtype and not _holds(self._rows.dtype, rows):
            self._rows = self._rows.to(_kept_as(rows))
        if rows.ndim > 1:
            if self._rows.dtype == torch.uint8 and self._filling < 0 and rows.shape[1] != self._rows.shape[1]:
                self._rows = self._rows.to(self._dtype)  # which the filling fits into
            self._widths[places] = rows.shape[1] if widths is None else widths
            self._rows, rows = _widened(self._rows, rows.shape[1], self._filling), rows
            rows = _widened(rows, self._rows.shape[1], self._filling)
        self._rows[places] = rows.to(self._rows.dtype)

    def get(self, places: Tensor) -> Tensor:
        """(n, …), as wide as the widest of them."""
        rows = self._rows[places].to(self._dtype)
        return rows[:, : int(self._widths[places].max())] if rows.ndim > 1 else rows


def bytes_of_targets(targets: Any) -> int:
    """Of a batch's targets, as they are kept."""
    tensors = targets.values() if isinstance(targets, Mapping) else [] if targets is None else [targets]
    return sum(tensor.numel() * _kept_as(tensor).itemsize for tensor in tensors)


def _kept_as(numbers: Tensor) -> torch.dtype:
    """Their own type; of whole numbers of pixels (n, …, h, w) the smallest that holds them."""
    if numbers.ndim < 3 or numbers.is_floating_point() or numbers.dtype == torch.bool:
        return numbers.dtype
    smaller = (kind for kind in _SMALL if kind.itemsize < numbers.dtype.itemsize and _holds(kind, numbers))
    return next(smaller, numbers.dtype)


def _holds(kind: torch.dtype, numbers: Tensor) -> bool:
    limits = torch.iinfo(kind)
    return not numbers.numel() or (int(numbers.min()) >= limits.min and int(numbers.max()) <= limits.max)


def _widened(rows: Tensor, width: int, filling: int) -> Tensor:
    """(n, w, …) -> (n, max(w, width), …)"""
    room = width - rows.shape[1]
    return functional.pad(rows, [0, 0] * (rows.ndim - 2) + [0, room], value=filling) if room > 0 else rows
