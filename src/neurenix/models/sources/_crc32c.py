"""CRC32C, the Castagnoli checksum of RFC 3720, appendix B.4, and its masked form in LevelDB's and TensorFlow's files.

Python's own zlib has another polynomial. A checksum is linear over its bits, so long data are cut into rows whose
checksums numpy computes side by side, and which are then joined.
"""

from __future__ import annotations

import functools

import numpy

_POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41 with its bits in reverse, lowest first
_ONES = 0xFFFFFFFF
_MASK_DELTA = 0xA282EAD8
_ROW = 256  # bytes


def crc32c(data: bytes | memoryview) -> int:
    """The checksum of some bytes, a whole number of 32 bits."""
    octets = numpy.frombuffer(data, dtype=numpy.uint8)
    rows = len(octets) // _ROW
    state = _ONES
    if rows:
        by_place = numpy.ascontiguousarray(octets[: rows * _ROW].reshape(rows, _ROW).T)
        low, second, third, high = _behind_a_row()
        for row in _step(numpy.zeros(rows, dtype=numpy.uint32), by_place).tolist():
            state = low[state & 255] ^ second[state >> 8 & 255] ^ third[state >> 16 & 255] ^ high[state >> 24] ^ row
    table = _table().tolist()
    for octet in octets[rows * _ROW :].tolist():
        state = table[(state ^ octet) & 255] ^ (state >> 8)
    return state ^ _ONES


def masked_crc32c(data: bytes | memoryview) -> int:
    """The checksum as files store it: rotated and shifted, so that data which hold checksums do not fit themselves."""
    found = crc32c(data)
    return ((found >> 15 | found << 17) + _MASK_DELTA) & _ONES


def _step(states: numpy.ndarray, by_place: numpy.ndarray) -> numpy.ndarray:
    """Take bytes into many checksums at once. states: (rows,) uint32. by_place: (bytes, rows) uint8."""
    table = _table()
    for octets in by_place:
        states = table[(states ^ octets) & 255] ^ (states >> 8)
    return states


@functools.cache
def _table() -> numpy.ndarray:
    """What each byte makes of an empty checksum: (256,) uint32."""
    values = numpy.arange(256, dtype=numpy.uint32)
    for _ in range(8):
        values = numpy.where(values & 1, values >> 1 ^ _POLYNOMIAL, values >> 1).astype(numpy.uint32)
    return values


@functools.cache
def _behind_a_row() -> tuple[list[int], ...]:
    """What a row of zeros makes of a checksum, for each of its four bytes: 4 lists of 256 numbers."""
    starts = numpy.arange(256, dtype=numpy.uint32)[:, None] << numpy.array([0, 8, 16, 24], dtype=numpy.uint32)
    ends = _step(starts.reshape(-1), numpy.zeros((_ROW, 1), dtype=numpy.uint8))
    return tuple(column.tolist() for column in ends.reshape(256, 4).T)
