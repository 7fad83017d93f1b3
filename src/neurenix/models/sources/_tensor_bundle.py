"""TensorFlow's checkpoints without TensorFlow: the tensor bundle, `NAME.index` with `NAME.data-00000-of-00001`.

The index is a sorted table: under the empty key a BundleHeaderProto, under each variable's name a BundleEntryProto that
says type, shape, file, offset, size and masked CRC32C of its numbers. The data files are these numbers one after
another, little endian. Of the two messages' fields those are read that are named in _entry and _check_header.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import torch
from torch import Tensor

from ...errors import WeightsMismatchError, WeightsNotFoundError
from .._records import StateDict
from ._crc32c import masked_crc32c
from ._sorted_table import damaged, read_sorted_table, varint

INDEX_SUFFIX = ".index"
# TensorFlow's numbers for types; the others are texts, resources, quantised and complex numbers.
_TYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    19: torch.float16,
}
_VARINT, _FIXED64, _TEXT, _FIXED32 = 0, 1, 2, 5  # kinds of a protocol buffer's fields
_LARGEST_INDEX = 1 << 26  # bytes; that of a model with ten thousand variables has about one million
_LONGEST_SIDE = 1 << 31

Field: TypeAlias = "tuple[int, int | bytes]"


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """Where the numbers of one variable lie, and what they are."""

    kind: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    checksum: int = 0
    sliced: bool = False


def read_tensor_bundle(index: Path, keep: Callable[[str], bool] = lambda name: True) -> StateDict:
    """The variables of a checkpoint by name, in TensorFlow's own layout (kernels are (in, out)).

    index: the file that ends in .index; the data files have to lie beside it.
    keep: which names are wanted; others (texts, an optimizer's moments) are not even looked at.

    Raises WeightsNotFoundError where a data file is missing; DamagedFileError for wrong checksums, sizes, offsets or
    anything else that no whole checkpoint has; WeightsMismatchError for variables that have another type, or lie in
    parts.
    """
    if index.stat().st_size > _LARGEST_INDEX:
        raise damaged(str(index), f"an index of {index.stat().st_size:,} bytes is more than any model needs")
    table = read_sorted_table(index.read_bytes(), str(index))
    shards = _check_header(table.pop(b"", b""), index)
    entries = {}
    for key, value in table.items():
        name = key.decode("utf-8", "replace")
        if keep(name):
            entries[name] = _entry(value, f"{index}, {name}")
    state: StateDict = {}
    for shard in sorted({entry.shard for entry in entries.values()}):
        state |= _read_shard(index, shard, shards, {name: e for name, e in entries.items() if e.shard == shard})
    return {name: state[name] for name in entries}


def _check_header(message: bytes, index: Path) -> int:
    """The number of data files."""
    values = {number: value for number, value in _fields(message, str(index)) if isinstance(value, int)}
    shards = values.get(1, 0)
    if not 0 < shards < 100_000:
        raise damaged(str(index), f"it has no header, or one that names {shards} data files")
    if values.get(2, 0):
        raise WeightsMismatchError(f"{index} was written on a big-endian machine; save it again on a usual one.")
    return shards


def _entry(message: bytes, name: str) -> _Entry:
    numbers = {3: "shard", 4: "offset", 5: "size", 6: "checksum", 1: "kind"}
    values: dict[str, int] = {}
    shape: tuple[int, ...] = ()
    sliced = False
    for number, value in _fields(message, name):
        if number in numbers and isinstance(value, int):
            values[numbers[number]] = value
        elif number == 2 and isinstance(value, bytes):
            shape = tuple(_sides(value, name))
        sliced = sliced or number == 7
    return _Entry(**values, shape=shape, sliced=sliced)


def _sides(message: bytes, name: str) -> Iterator[int]:
    """The lengths of a shape's dimensions."""
    for number, value in _fields(message, name):
        if number == 2 and isinstance(value, bytes):
            side = dict(_fields(value, name)).get(1, 0)
            if not isinstance(side, int) or side >= _LONGEST_SIDE:  # negative ones are large as well
                raise damaged(name, "its shape is unknown, or larger than any memory")
            yield side


def _fields(message: bytes, name: str) -> Iterator[Field]:
    """(number, value) of a protocol buffer's fields: whole numbers, and bytes for texts and messages within."""
    place = 0
    while place < len(message):
        tag, place = varint(message, place, name)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, place = varint(message, place, name)
            yield number, value
            continue
        if kind == _TEXT:
            size, place = varint(message, place, name)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise damaged(name, f"a field of kind {kind} stands in it, which this format has not")
        if place + size > len(message):
            raise damaged(name, "a field of it is longer than its message")
        content = message[place : place + size]
        yield number, content if kind == _TEXT else int.from_bytes(content, "little")
        place += size


def _read_shard(index: Path, shard: int, shards: int, entries: dict[str, _Entry]) -> StateDict:
    path = Path(f"{str(index).removesuffix(INDEX_SUFFIX)}.data-{shard:05d}-of-{shards:05d}")
    if shard >= shards:
        raise damaged(str(index), f"a variable lies in data file {shard}, and there are {shards}")
    if not path.is_file():
        raise WeightsNotFoundError(
            f"{index.name} needs {path.name} beside it, and there is none in {path.parent.absolute()}; a TensorFlow "
            "checkpoint is several files, which have to keep their names and lie in one folder."
        )
    state: StateDict = {}
    end = 0
    with path.open("rb") as stream:
        length = os.fstat(stream.fileno()).st_size
        for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].size)):
            _check_entry(f"{path}, {name}", entry, end, length)
            state[name] = _tensor(f"{path}, {name}", entry, stream)
            end = entry.offset + entry.size
    return state


def _check_entry(name: str, entry: _Entry, earliest: int, length: int) -> None:
    """Refuse what the data file cannot hold, before memory is taken for it."""
    if entry.sliced:
        raise WeightsMismatchError(f"{name} is stored in parts (a partitioned variable), which cannot be read here.")
    if entry.kind not in _TYPES:
        raise WeightsMismatchError(
            f"{name} has TensorFlow's type {entry.kind}, which is no plain number; leave it out (keep=…)."
        )
    wanted = math.prod(entry.shape) * _TYPES[entry.kind].itemsize
    if wanted != entry.size:
        raise damaged(name, f"{list(entry.shape)} {_TYPES[entry.kind]} takes {wanted} bytes, and it has {entry.size}")
    if entry.offset < earliest or entry.offset + entry.size > length:
        raise damaged(
            name,
            f"its bytes are declared at {entry.offset} to {entry.offset + entry.size}, where {earliest} to {length} "
            "are left",
        )


def _tensor(name: str, entry: _Entry, stream: BinaryIO) -> Tensor:
    stream.seek(entry.offset)
    content = bytearray(stream.read(entry.size))
    if len(content) != entry.size or masked_crc32c(memoryview(content)) != entry.checksum:
        raise damaged(name, "the checksum of its numbers is wrong")
    if not content:
        return torch.empty(entry.shape, dtype=_TYPES[entry.kind])
    return torch.frombuffer(content, dtype=_TYPES[entry.kind]).reshape(entry.shape)
