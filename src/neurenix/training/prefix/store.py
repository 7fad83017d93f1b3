"""Rows of boundary tensors, one per sample, in memory or in a file, at random access."""

from __future__ import annotations

import errno
import math
import os
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

import numpy
import torch
from torch import Tensor

from ...devices import move

Boundary = dict[str, Tensor]
CPU = torch.device("cpu")
STORAGE = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}

_FROM_MEMORY = 1e-5  # seconds for a row, above which it came from the disk


@dataclass(frozen=True)
class Column:
    """One tensor of the boundary. shape: of a sample, or of one of its tokens. kept: dtype in the store.

    by_token: the column has a row for each token instead of one for each sample.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    kept: torch.dtype
    by_token: bool = False

    @property
    def width(self) -> int:
        """Numbers in one row."""
        return math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; int8 has a scale in float32 beside each."""
        return self.width * self.kept.itemsize + (4 if self.is_scaled else 0)

    @property
    def is_scaled(self) -> bool:
        """Whether rows are kept as whole numbers and a scale."""
        return self.kept == torch.int8 and self.dtype != torch.int8


def columns_of(boundary: Boundary, tokens: frozenset[str], storage: str = "auto") -> list[Column]:
    """How the tensors (n, …) of a boundary are laid out; storage: a key of STORAGE, for those that are not whole."""
    kept = STORAGE[storage]
    return [
        Column(
            name,
            tuple(tensor.shape[2 if name in tokens else 1 :]),
            tensor.dtype,
            kept if kept is not None and tensor.is_floating_point() and tensor.numel() else tensor.dtype,
            name in tokens,
        )
        for name, tensor in boundary.items()
    ]


def bytes_per_sample(columns: Sequence[Column], tokens: float = 1.0) -> float:
    """Bytes of a sample with so many tokens."""
    return sum(column.row_bytes * (tokens if column.by_token else 1.0) for column in columns)


class Rows(Protocol):
    """A table (rows, width) of numbers at random access."""

    def put(self, places: Tensor, rows: Tensor) -> None:
        """Write rows (n, width) at their places (n,)."""
        ...

    def take(self, places: Tensor) -> Tensor:
        """The rows (n, width) at some places (n,)."""
        ...


@final
class MemoryRows:
    """Rows in a device's memory, which rows come from and go to."""

    def __init__(self, count: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self._rows = torch.zeros(count, width, dtype=dtype, device=device)

    def put(self, places: Tensor, rows: Tensor) -> None:
        """Write rows."""
        self._rows.index_copy_(0, move(places, self._rows.device), rows)

    def take(self, places: Tensor) -> Tensor:
        """Copies of some rows."""
        return self._rows.index_select(0, move(places, self._rows.device))


@final
class FileRows:
    """Rows in a file without a name, of which nothing is left behind however the process ends.

    Read and written by position and not mapped: this process's memory does not grow with the file, and a failing disk
    is an OSError and no crash. All room is taken at once, so a disk that fills up later does no harm.
    Raises OSError when there is no room.
    """

    def __init__(self, count: int, width: int, dtype: torch.dtype, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._width, self._dtype = width, dtype
        self._row_bytes = width * dtype.itemsize
        self._waits = False
        with tempfile.TemporaryFile(dir=folder) as file:
            _take_room(file.fileno(), max(1, count * self._row_bytes))
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)

    def put(self, places: Tensor, rows: Tensor) -> None:
        """Write rows; neighbours in one go."""
        content = _bytes_of(rows.contiguous())
        for first, after, offset in _spans(places, self._row_bytes):
            while first < after:
                done = os.pwrite(self._file, content[first:after], offset)
                first, offset = first + done, offset + done

    def take(self, places: Tensor) -> Tensor:
        """Some rows; neighbours are read in one go."""
        rows = torch.empty(len(places), self._width, dtype=self._dtype)
        content, spans = _bytes_of(rows), _spans(places, self._row_bytes)
        began = time.perf_counter()
        if self._waits and hasattr(os, "posix_fadvise"):  # the disk works on all of them at once
            for first, after, offset in spans:
                os.posix_fadvise(self._file, offset, after - first, os.POSIX_FADV_WILLNEED)
        for first, after, offset in spans:
            if os.preadv(self._file, (content[first:after],), offset) != after - first:
                self._read(content[first:after], offset)
        self._waits = time.perf_counter() - began > _FROM_MEMORY * len(places)
        return rows

    def _read(self, content: memoryview, offset: int) -> None:
        """Read what one call did not give."""
        done = 0
        while done < len(content):
            count = os.preadv(self._file, (content[done:],), offset + done)
            if not count:
                raise OSError(errno.EIO, "the file of stored rows ends too early: it was cut while it was in use")
            done += count


@final
class RowStore:
    """Boundary tensors of `count` samples, each written once and read in any order.

    lengths: (count,) tokens of each sample, where columns have rows by token. folder: where files are made if the rows
    shall not be in memory. device: whose memory that is, and where batches of rows come out; of files the CPU's.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        count: int,
        *,
        lengths: Tensor | None = None,
        folder: Path | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.columns = tuple(columns)
        self._device = device if folder is None else CPU
        self._written = torch.zeros(count, dtype=torch.bool)
        self._starts = None if lengths is None else torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
        self._rows: dict[str, Rows] = {c.name: self._new_rows(c, folder) for c in columns}
        self._scales = {
            c.name: MemoryRows(self._count(c), 1, torch.float32, self._device) for c in columns if c.is_scaled
        }

    def __len__(self) -> int:
        return len(self._written)

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        return sum(self._count(column) * column.row_bytes for column in self.columns)

    def written(self, indices: Tensor) -> Tensor:
        """(n,) whether the rows of each of these samples are there."""
        return self._written[indices]

    @property
    def is_exact(self) -> bool:
        """Whether rows come out as they went in."""
        return all(column.kept == column.dtype for column in self.columns)

    def tried(self, indices: Tensor, boundary: Boundary) -> Boundary:
        """The rows of a batch as they would come out; they are not kept."""
        self.put(indices, boundary)
        self._written[indices] = False
        return self.get(indices)

    def fits(self, boundary: Boundary) -> bool:
        """Whether rows of a batch have the shape of those that the store was made for."""
        return all(
            boundary[column.name].shape[2 if column.by_token else 1 :] == column.shape for column in self.columns
        )

    def put(self, indices: Tensor, boundary: Boundary) -> None:
        """Keep the rows of a batch. indices: (n,) places of its samples."""
        for column in self.columns:
            rows, places = boundary[column.name].detach().to(self._device), indices
            if column.by_token:
                places, real = self._tokens(indices, rows.shape[1])
                rows, places = rows.flatten(0, 1).index_select(0, self._places(real)), places[real]
            rows = rows.reshape(len(places), column.width)
            if column.is_scaled:
                scales = rows.float().abs().amax(1, keepdim=True).clamp(min=1e-30) / 127
                self._scales[column.name].put(places, scales)
                rows = (rows.float() / scales).round()
            self._rows[column.name].put(places, rows.to(column.kept))
        self._written[indices] = True

    def get(self, indices: Tensor) -> Boundary:
        """The rows of some samples as a batch; texts are padded with zeros to the longest of them."""
        boundary = {}
        for column in self.columns:
            if not column.by_token:
                boundary[column.name] = self._taken(column, indices).view(len(indices), *column.shape)
                continue
            places, real = self._tokens(indices)
            rows = torch.zeros(places.numel(), column.width, dtype=column.dtype, device=self._device)
            rows.index_copy_(0, self._places(real), self._taken(column, places[real]))
            boundary[column.name] = rows.view(*places.shape, *column.shape)
        return boundary

    def _places(self, real: Tensor) -> Tensor:
        """Places of what is there (n, tokens) in a batch's tokens, one after the other; a GPU is not waited for."""
        return move(real.flatten().nonzero().flatten(), self._device)

    def _taken(self, column: Column, places: Tensor) -> Tensor:
        rows = self._rows[column.name].take(places)
        if column.is_scaled:
            rows = rows.float() * self._scales[column.name].take(places)
        return rows.to(column.dtype)

    def _tokens(self, indices: Tensor, padded: int | None = None) -> tuple[Tensor, Tensor]:
        """(n, tokens) rows of each sample's tokens, and which of them are there and not padding."""
        assert self._starts is not None, "columns by token need lengths"
        first, after = self._starts[indices], self._starts[indices + 1]
        longest = int((after - first).max()) if len(indices) else 0
        steps = torch.arange(longest if padded is None else padded)
        places = first[:, None] + steps
        return places, places < after[:, None]

    def _count(self, column: Column) -> int:
        if not column.by_token:
            return len(self)
        assert self._starts is not None, "columns by token need lengths"
        return int(self._starts[-1])

    def _new_rows(self, column: Column, folder: Path | None) -> Rows:
        if folder is None:
            return MemoryRows(self._count(column), column.width, column.kept, self._device)
        return FileRows(self._count(column), column.width, column.kept, folder)


def _take_room(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:  # macOS has no such call; there a disk that fills up is an error when rows are written
        os.truncate(file, size)


def _spans(places: Tensor, size: int) -> list[tuple[int, int, int]]:
    """(first byte, the one after the last, offset in the file) of each run of consecutive rows of `size` bytes."""
    numbers = places.numpy()
    starts = numpy.flatnonzero(numpy.diff(numbers, prepend=numbers[:1] - 2) != 1)
    firsts = (starts * size).tolist()
    return list(zip(firsts, [*firsts[1:], len(numbers) * size], (numbers[starts] * size).tolist(), strict=False))


def _bytes_of(rows: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, not copied."""
    if not rows.numel():
        return memoryview(b"")
    content: Any = rows.view(torch.uint8).numpy()
    return memoryview(content).cast("B")
