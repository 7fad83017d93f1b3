"""The files of word2vec, GloVe and fastText's .vec, plain or packed with gzip.

word2vec: a line "words numbers", then for each word the word, a space and its vector, as text in a line of its own or
as float32 (little-endian), after which a line end may stand. GloVe: the lines of the text form without the first one.
Which of them a file is, its content says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .._records import StateDict
from ._fasttext_file import MAGIC, read_fasttext
from ._vector_stream import VectorStream
from ._vector_table import LONGEST_WORD, MOST_NUMBERS, MOST_WORDS, VectorTable

_HEADER = re.compile(rb"\s*(-?\d{1,18})\s+(-?\d{1,18})\s*")
_LONGEST_LINE = LONGEST_WORD + 32 * MOST_NUMBERS
_ROWS = 1024  # that are turned into numbers at once


def read_word_vectors(path: Path, limit: int | None = None) -> StateDict:
    """Tensors of a WordVectors trunk: embedding.weight (rows, d) float32, vocabulary uint8, ngrams (3,).

    limit: keep only so many words, the first ones; published files have the most frequent first. What follows them is
    not read then. The buckets of a fastText .bin are kept whole.

    Raises DamagedFileError for a file that ends too early, declares what it does not have, has rows of another length,
    a word twice or words that are no UTF-8; UnsafeFileError for one that unpacks to far more than it weighs;
    WeightsMismatchError for fastText classifiers and quantised models.
    """
    with VectorStream(path) as stream:
        if stream.peek(4) == MAGIC:
            return read_fasttext(stream, limit)
        header = _HEADER.fullmatch(stream.peek(64).split(b"\n")[0])
        if header is None:
            return _read_text(stream, None, _width_of_first_line(stream), limit)
        stream.line(64, "the first line")
        words, width = _sizes(stream, int(header[1]), int(header[2]))
        read = _read_text if _is_text(stream, width) else _read_binary
        return read(stream, words, width, limit)


def _sizes(stream: VectorStream, words: int, width: int) -> tuple[int, int]:
    if not 0 < words <= MOST_WORDS or not 0 < width <= MOST_NUMBERS:
        raise stream.damaged(
            f"it declares {words:,} words of {width:,} numbers; 1 to {MOST_WORDS:,} words of 1 to {MOST_NUMBERS:,} "
            "numbers are read"
        )
    stream.promise(words * (2 + 2 * width), f"{words:,} words of {width:,} numbers")
    return words, width


def _width_of_first_line(stream: VectorStream) -> int:
    line = stream.peek(_LONGEST_LINE).split(b"\n")[0].rstrip()
    width = len(line.split(b" ")) - 1
    if not 0 < width <= MOST_NUMBERS or _numbers(line.split(b" ", 1)[-1]) is None:
        raise stream.damaged("its first line is neither two sizes nor a word and its numbers")
    return width


def _is_text(stream: VectorStream, width: int) -> bool:
    line = stream.peek(_LONGEST_LINE).split(b"\n")[0].rstrip()
    fields = line.rsplit(b" ", width)
    return len(fields) == width + 1 and _numbers(b" ".join(fields[1:])) is not None


def _numbers(text: bytes) -> np.ndarray | None:
    """The numbers in a text, None where one of them is none."""
    try:
        return np.fromstring(text, dtype=np.float32, sep=" ")
    except (ValueError, DeprecationWarning):  # numpy's words for it, the earlier version's last
        return None


def _read_text(stream: VectorStream, rows: int | None, width: int, limit: int | None) -> StateDict:
    """rows: as many as the file declares; None where it declares nothing."""
    wanted = min(rows or MOST_WORDS, limit or MOST_WORDS)
    table = VectorTable(stream, width, min(wanted, rows or _ROWS))
    for lines in _blocks(stream, table, wanted):
        split = [_split(line, width) for line in lines]
        values = _numbers(b" ".join(numbers for _, numbers in split))
        if values is None or values.size != len(lines) * width or not all(_is_word(word) for word, _ in split):
            raise stream.damaged(_wrong_row(split, width, len(table.words)))
        table.add([word for word, _ in split], values.reshape(-1, width))
    if rows is not None and len(table.words) < wanted:
        raise stream.damaged(f"it declares {rows:,} words and has {len(table.words):,}")
    if limit is None or len(table.words) < limit:
        stream.end(f"{len(table.words):,} words")
    return table.state()


def _blocks(stream: VectorStream, table: VectorTable, rows: int) -> Iterator[list[bytes]]:
    """Lines without spaces at their ends, at most `rows` of them in all, up to the end or to a blank line."""
    while rows > 0:
        lines: list[bytes] = []
        while len(lines) < min(_ROWS, rows):
            line = stream.line(_LONGEST_LINE, f"row {len(table.words) + len(lines)}")
            if not line:
                break
            lines.append(line.rstrip(b" \t\r"))
        if lines:
            yield lines
        if not line:
            return
        rows -= len(lines)


def _split(line: bytes, width: int) -> tuple[bytes, bytes]:
    """(word, numbers) of a line; GloVe has words with spaces in them."""
    if line.count(b" ") == width:
        word, _, numbers = line.partition(b" ")
        return word, numbers
    fields = line.rsplit(b" ", width)
    return fields[0], b" ".join(fields[1:])


def _is_word(word: bytes) -> bool:
    """Whether a word does not end in a number of its own, as it does in a row that has one too many."""
    _, space, last = word.rpartition(b" ")
    return not space or _numbers(last) is None


def _wrong_row(split: list[tuple[bytes, bytes]], width: int, first: int) -> str:
    for row, (word, numbers) in enumerate(split, first):
        found = _numbers(numbers)
        if found is None or found.size != width or numbers.count(b" ") != width - 1 or not _is_word(word):
            return f"row {row} ({word.decode('utf-8', 'replace')[:60]!r}) has not {width} numbers, as the first one has"
    return f"it has rows without {width} numbers"


def _read_binary(stream: VectorStream, rows: int | None, width: int, limit: int | None) -> StateDict:
    declared = rows or 0
    stream.promise(declared * (2 + 4 * width), f"{declared:,} words of {width:,} numbers")
    wanted = min(declared, limit or declared)
    table = VectorTable(stream, width, wanted)
    while len(table.words) < wanted:
        words, vectors = [], []
        for _ in range(min(_ROWS, wanted - len(table.words))):
            words.append(stream.until(b" ", LONGEST_WORD, f"the word of row {len(table.words)}").removeprefix(b"\n"))
            vectors.append(stream.take(4 * width))
        table.add(words, np.frombuffer(b"".join(vectors), dtype="<f4").reshape(-1, width))
    if wanted == declared:
        stream.end(f"{declared:,} words")
    return table.state()
