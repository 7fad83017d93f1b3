"""LevelDB's sorted table, as far as TensorFlow writes it: a file of keys and values in blocks with checksums.

A block is entries, the places where keys begin anew, their number; behind it stand a byte for its compression and a
masked CRC32C. The last 48 bytes of the file say where the block is that says where all others are. What is read is
bytes; nothing that a number in the file says is believed before it is compared with the file's size.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import DamagedFileError, WeightsMismatchError
from ._crc32c import masked_crc32c

_MAGIC = 0xDB4775248B80FB57
_FOOTER, _TRAILER = 48, 5  # bytes
_LONGEST_NUMBER = 10  # bytes of 64 bits in groups of seven
_MOST_IN_KEYS = 1 << 26  # bytes; a key stored as "the last one and a letter" takes four
_COMPRESSIONS = {0: "none", 1: "snappy", 2: "zlib"}


def read_sorted_table(content: bytes, name: str) -> dict[bytes, bytes]:
    """Values by key, in the file's order, which is that of the keys. name: of the file, for messages.

    Raises DamagedFileError for anything that is not a whole table, WeightsMismatchError for compressed blocks.
    """
    if len(content) < _FOOTER or int.from_bytes(content[-8:], "little") != _MAGIC:
        raise damaged(name, "it does not end in the magic number of a sorted table")
    (begin, size), place = _handle(content[-_FOOTER:-8], 0, name)
    _block(content, begin, size, name)  # the metadata, which TensorFlow leaves empty
    (begin, size), _ = _handle(content[-_FOOTER:-8], place, name)
    found: dict[bytes, bytes] = {}
    taken = keys = 0
    for _, value in _entries(_block(content, begin, size, name), name):
        (begin, size), _ = _handle(value, 0, name)
        taken += size
        if taken > len(content):  # one block named many times would be a small file that fills the memory
            raise damaged(name, "its blocks overlap")
        for key, entry in _entries(_block(content, begin, size, name), name):
            if found and key <= next(reversed(found)):
                raise damaged(name, f"its key {key[:60]!r} is out of order")
            keys += len(key)
            if keys > _MOST_IN_KEYS:
                raise damaged(name, f"its keys take more than {_MOST_IN_KEYS} bytes")
            found[key] = entry
    return found


def varint(data: bytes, place: int, name: str) -> tuple[int, int]:
    """A number in groups of seven bits, lowest first, and the place behind it."""
    value = 0
    for count, octet in enumerate(data[place : place + _LONGEST_NUMBER]):
        value |= (octet & 127) << 7 * count
        if octet < 128:
            return value, place + count + 1
    raise damaged(name, "a number in it has no end")


def damaged(name: str, reason: str) -> DamagedFileError:
    """The error for a file of a tensor bundle that is not whole."""
    return DamagedFileError(f"{name} is not a whole file of a TensorFlow checkpoint: {reason}. Fetch it again.")


def _handle(data: bytes, place: int, name: str) -> tuple[tuple[int, int], int]:
    """(begin, size) of a block, and the place behind these."""
    begin, place = varint(data, place, name)
    size, place = varint(data, place, name)
    return (begin, size), place


def _block(content: bytes, begin: int, size: int, name: str) -> bytes:
    end = begin + size
    if end + _TRAILER > len(content) - _FOOTER:
        raise damaged(name, f"a block is declared at {begin} to {end}, and the file has {len(content)} bytes")
    if masked_crc32c(content[begin : end + 1]) != int.from_bytes(content[end + 1 : end + _TRAILER], "little"):
        raise damaged(name, f"the checksum of the block at {begin} is wrong")
    if content[end]:
        kind = _COMPRESSIONS.get(content[end], f"of kind {content[end]}")
        raise WeightsMismatchError(
            f"{name} is compressed ({kind}), which TensorFlow does not do when it saves a checkpoint; save it again "
            "with tf.train.Saver or tf.train.Checkpoint."
        )
    return content[begin:end]


def _entries(block: bytes, name: str) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values; a key is stored as what differs from the one before it."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if len(block) < 4 or end < 0:
        raise damaged(name, f"a block of {len(block)} bytes is to hold {restarts} places of new keys")
    key, place = b"", 0
    while place < end:
        shared, place = varint(block, place, name)
        own, place = varint(block, place, name)
        size, place = varint(block, place, name)
        if shared > len(key) or place + own + size > end:
            raise damaged(name, f"the entry behind the key {key[:60]!r} is longer than its block")
        key = key[:shared] + block[place : place + own]
        yield key, block[place + own : place + own + size]
        place += own + size
