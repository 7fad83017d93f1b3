"""TensorFlow checkpoints written from the format's description, with a checksum computed bit by bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

MAGIC = bytes.fromhex("57fb808b247547db")
TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "bool": 10, "float16": 19}


def slow_crc32c(data: bytes) -> int:
    state = 0xFFFFFFFF
    for octet in data:
        state ^= octet
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    found = slow_crc32c(data)
    return ((found >> 15 | (found & 0x7FFF) << 17) + 0xA282EAD8) % 2**32


def varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value % 128 + 128)
        value //= 128
    return bytes([*groups, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def text(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def entry(kind: int, shape: tuple[int, ...], offset: int, size: int, checksum: int, extra: bytes = b"") -> bytes:
    """A BundleEntryProto."""
    sides = b"".join(text(2, number(1, side)) for side in shape)
    place = number(4, offset) if offset else b""
    return number(1, kind) + text(2, sides) + place + number(5, size) + b"\x35" + checksum.to_bytes(4, "little") + extra


def block(pairs: list[tuple[bytes, bytes]], kind: int = 0, interval: int = 16) -> bytes:
    """Entries with shared beginnings, restart places, their number; kind of compression and checksum."""
    content, restarts, last = b"", [], b""
    for place, (key, value) in enumerate(pairs):
        shared = 0
        if place % interval == 0:
            restarts.append(len(content))
        else:
            shared = next(
                (i for i, (a, b) in enumerate(zip(last, key, strict=False)) if a != b), min(len(last), len(key))
            )
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    content += b"".join(place.to_bytes(4, "little") for place in restarts or [0])
    content += len(restarts or [0]).to_bytes(4, "little") + bytes([kind])
    return content + masked(content).to_bytes(4, "little")


def sorted_table(pairs: list[tuple[bytes, bytes]], per_block: int = 20, kind: int = 0) -> bytes:
    content, handles = b"", []
    for start in range(0, len(pairs), per_block):
        part = pairs[start : start + per_block]
        written = block(part, kind)
        handles.append((part[-1][0], varint(len(content)) + varint(len(written) - 5)))
        content += written
    ends = []
    for written in (block([]), block(handles, interval=1)):
        ends.append(varint(len(content)) + varint(len(written) - 5))
        content += written
    return content + b"".join(ends).ljust(40, b"\x00") + MAGIC


def index_of(entries: Mapping[str, bytes], shards: int = 1, header: bytes = b"") -> bytes:
    pairs = sorted((name.encode(), value) for name, value in entries.items())
    return sorted_table([(b"", number(1, shards) + header + text(3, number(1, 1))), *pairs])


def write_bundle(prefix: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """Write PREFIX.index and PREFIX.data-00000-of-00001; gives the former."""
    data, entries = b"", {}
    for name in sorted(tensors):
        content = np.ascontiguousarray(tensors[name]).astype(tensors[name].dtype.newbyteorder("<")).tobytes()
        entries[name] = entry(
            TYPES[str(tensors[name].dtype)], tensors[name].shape, len(data), len(content), masked(content)
        )
        data += content
    Path(f"{prefix}.data-00000-of-00001").write_bytes(data)
    index = Path(f"{prefix}.index")
    index.write_bytes(index_of(entries))
    return index
