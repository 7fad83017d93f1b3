"""Small files of vectors in the published formats, and fastText's arithmetic in plain loops."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

WORDS = ["the", ",", "good", "bad", "film", "naïve", "u.s.", "n't", "</s>"]
BUCKETS = 50


def vectors(rows: int = len(WORDS), width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32)


def as_text(words: list[str], values: np.ndarray, *, header: bool) -> bytes:
    lines = [f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, values, strict=True)]
    return ((f"{len(words)} {values.shape[1]}\n" if header else "") + "".join(lines)).encode()


def as_word2vec(words: list[str], values: np.ndarray, *, line_ends: bool = True) -> bytes:
    rows = [
        word.encode() + b" " + row.astype("<f4").tobytes() + b"\n" * line_ends
        for word, row in zip(words, values, strict=True)
    ]
    return f"{len(words)} {values.shape[1]}\n".encode() + b"".join(rows)


def as_fasttext(
    words: list[str],
    values: np.ndarray,
    *,
    shortest: int = 3,
    longest: int = 4,
    buckets: int = BUCKETS,
    model: int = 2,
    quantised: int = 0,
    pruned: int = -1,
    labels: int = 0,
    outputs: int | None = None,
) -> bytes:
    """values: (words + buckets, d)"""
    width = values.shape[1]
    settings = struct.pack("<12id", width, 5, 5, 1, 5, 1, 1, model, buckets, shortest, longest, 100, 1e-4)
    dictionary = struct.pack("<3i2q", len(words) + labels, len(words), labels, 100, pruned)
    entries = b"".join(word.encode() + b"\0" + struct.pack("<qb", 7, 0) for word in words)
    entries += b"".join(b"__label__a\0" + struct.pack("<qb", 7, 1) for _ in range(labels))
    matrix = struct.pack("<B2q", quantised, *values.shape) + values.astype("<f4").tobytes()
    output = np.zeros((len(words) if outputs is None else outputs, width), dtype="<f4")
    last = struct.pack("<B2q", 0, *output.shape) + output.tobytes()
    return struct.pack("<2i", 793712314, 12) + settings + dictionary + entries + matrix + last


def fasttext_rows(word: str, words: list[str], shortest: int, longest: int, buckets: int) -> list[int]:
    """Rows of a word, as Bojanowski et al. (section 3.2) and the published tool have them, byte by byte."""
    rows = [words.index(word)] if word in words else []
    if word == "</s>":
        return rows
    text = f"<{word}>".encode()
    for start in range(len(text)):
        if text[start] & 0xC0 == 0x80:
            continue
        end, letters = start, 0
        while end < len(text) and letters < longest:
            end += 1
            while end < len(text) and text[end] & 0xC0 == 0x80:
                end += 1
            letters += 1
            if letters < shortest or (letters == 1 and (start == 0 or end == len(text))):
                continue
            value = 2166136261
            for byte in text[start:end]:
                signed = byte - 256 if byte > 127 else byte
                value = ((value ^ (signed & 0xFFFFFFFF)) * 16777619) & 0xFFFFFFFF
            rows.append(len(words) + value % buckets)
    return rows


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path
