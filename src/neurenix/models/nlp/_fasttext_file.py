"""fastText's own .bin of unsupervised vectors: words, buckets of n-grams, and the rows of both.

All numbers are little-endian. Magic and version; twelve int32 settings and a float64; the dictionary (words with their
counts and kinds); a flag for quantisation and the input matrix, words before buckets; the same for the output matrix,
which only training needs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from ...errors import WeightsMismatchError
from .._records import StateDict
from ._vector_stream import VectorStream
from ._vector_table import LONGEST_WORD, MOST_NUMBERS, MOST_WORDS, VectorTable

MAGIC = struct.pack("<i", 793712314)
_VERSIONS = (11, 12)
_SUPERVISED = 3
_BYTES = 64 << 20  # of a matrix that are read at once
_SPOILT = 1  # in a thousand: the tool cuts some words of the web within a letter


@dataclass(frozen=True, kw_only=True)
class _Settings:
    width: int
    shortest: int
    longest: int
    buckets: int


def read_fasttext(stream: VectorStream, limit: int | None) -> StateDict:
    """Tensors of a WordVectors trunk with n-grams; see read_word_vectors."""
    settings = _settings(stream)
    words = _dictionary(stream)
    rows = _matrix(stream, "input")
    expected = (len(words) + settings.buckets, settings.width)
    if rows != expected:
        raise stream.damaged(f"its matrix is {rows}, and words and buckets make {expected}")
    kept = min(len(words), limit or len(words))
    table = VectorTable(stream, settings.width, kept + settings.buckets)
    _read_rows(stream, table, words[:kept], kept)
    stream.skip(4 * settings.width * (len(words) - kept))
    _read_rows(stream, table, [], settings.buckets)
    if kept == len(words):
        height, width = _matrix(stream, "output")
        stream.skip(4 * height * width)
        stream.end("its matrices")
    return table.state((settings.shortest, settings.longest, settings.buckets), spoilt=_SPOILT)


def _settings(stream: VectorStream) -> _Settings:
    _, version = _numbers(stream, "<2i")
    if version not in _VERSIONS:
        raise stream.damaged(f"it is of version {version}, and versions {_VERSIONS} are read")
    width, *_, model, buckets, shortest, longest, _ = _numbers(stream, "<12i")
    _numbers(stream, "<d")
    if model == _SUPERVISED:
        raise WeightsMismatchError(
            f"{stream.path} is a supervised fastText model, a classifier over words; only unsupervised vectors "
            "(skipgram, cbow) are read here."
        )
    usable = 0 < width <= MOST_NUMBERS and 0 <= buckets <= MOST_WORDS and 0 <= shortest and 0 <= longest <= 100
    if not usable or (longest and not (0 < shortest <= longest and buckets)):
        raise stream.damaged(
            f"it declares vectors of {width:,} numbers and {buckets:,} buckets for n-grams of {shortest} to {longest} "
            "letters"
        )
    return _Settings(width=width, shortest=shortest, longest=longest, buckets=buckets)


def _dictionary(stream: VectorStream) -> list[bytes]:
    size, words, labels, tokens, pruned = _numbers(stream, "<3i2q")
    if pruned >= 0:
        raise _quantised(stream)
    if not 0 < size <= MOST_WORDS or words != size or labels or tokens < 0:
        raise stream.damaged(f"it declares {size:,} entries, of them {words:,} words and {labels:,} labels")
    stream.promise(size * 11, f"{size:,} words")
    found = []
    for number in range(size):
        found.append(stream.until(b"\0", LONGEST_WORD, f"word {number}"))
        count, kind = struct.unpack("<qb", stream.take(9))
        if count < 0 or kind != 0:
            raise stream.damaged(f"entry {number} of its dictionary is no word ({kind}, seen {count:,} times)")
    return found


def _matrix(stream: VectorStream, name: str) -> tuple[int, int]:
    (quantised,) = _numbers(stream, "<B")
    if quantised == 1:
        raise _quantised(stream)
    height, width = _numbers(stream, "<2q")
    if quantised or not 0 <= height <= 2 * MOST_WORDS or not 0 < width <= MOST_NUMBERS:
        raise stream.damaged(f"its {name} matrix is declared as {height:,} x {width:,}")
    stream.promise(4 * height * width, f"an {name} matrix of {height:,} x {width:,}")
    return height, width


def _read_rows(stream: VectorStream, table: VectorTable, words: list[bytes], rows: int) -> None:
    step = max(1, _BYTES // (4 * table.width))
    for start in range(0, rows, step):
        count = min(step, rows - start)
        values = np.frombuffer(stream.take(4 * table.width * count), dtype="<f4").reshape(count, table.width)
        table.add(words[start : start + count], values)


def _numbers(stream: VectorStream, form: str) -> tuple[int, ...]:
    return struct.unpack(form, stream.take(struct.calcsize(form)))


def _quantised(stream: VectorStream) -> WeightsMismatchError:
    return WeightsMismatchError(
        f"{stream.path} is a quantised fastText model (.ftz); its vectors are approximations that cannot be tuned. "
        "Load the .bin that it was made from."
    )
