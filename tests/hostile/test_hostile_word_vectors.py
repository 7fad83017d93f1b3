"""Files of word vectors that end early, promise too much, or are something else: named errors, no memory taken."""

from __future__ import annotations

import gzip
import hashlib
import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.families.word_vector_files import BUCKETS, WORDS, as_fasttext, as_text, as_word2vec, vectors, write

from neurenix.errors import DamagedFileError, UnsafeFileError, WeightsMismatchError
from neurenix.models import UrlSource
from neurenix.models.nlp import _vector_stream, read_word_vectors
from neurenix.models.sources._url import _check_md5
from neurenix.transfer import load_pretrained_model

TEXT = as_text(WORDS, vectors(), header=True)
BARE = as_text(WORDS, vectors(), header=False)
BINARY = as_word2vec(WORDS, vectors())
ROWS = vectors(len(WORDS) + BUCKETS)
FASTTEXT = as_fasttext(WORDS, ROWS)
LINES = BARE.split(b"\n")
TWICE = as_word2vec([*WORDS[:-1], "the"], vectors())
SETTINGS = 8  # where fastText's settings begin, after magic and version


def changed(content: bytes, place: int, form: str, value: int) -> bytes:
    return content[:place] + struct.pack(form, value) + content[place + struct.calcsize(form) :]


WRONG = {
    "empty": (b"", "first line"),
    "prose": (b"Once upon a time\nthere was a file\n", "first line"),
    "archive": (b"PK\x03\x04" + bytes(100), "first line"),
    "zeros": (bytes(1000), "first line"),
    "negative words": (b"-5 10\n" + BINARY, "declares -5 words"),
    "negative width": (b"5 -10\n" + BINARY, "words of -10 numbers"),
    "no words": (b"0 6\n", "declares 0 words"),
    "absurd words": (b"99999999999 6\n" + BINARY, "99,999,999,999 words"),
    "absurd width": (b"9 99999999\n" + BINARY, "99,999,999 numbers"),
    "more than there is": (b"40000000 300\n" + BINARY, "declares 40,000,000 words of 300 numbers, at least"),
    "truncated binary": (BINARY[:-9], "ends too early|at least"),
    "truncated within a word": (as_word2vec(WORDS, vectors(), line_ends=False)[:-26], "ends too early|at least"),
    "more rows than declared": (b"8" + BINARY[1:], "more behind 8 words"),
    "fewer lines than declared": (b"\n".join(TEXT.split(b"\n")[:-3]) + b"\n", "declares 9 words and has 7"),
    "more lines than declared": (b"8" + TEXT[1:], "more behind 8 words"),
    "short row": (BARE.replace(LINES[3], LINES[3].rpartition(b" ")[0]), r"row 3 .*has not 6 numbers"),
    "long row": (BARE.replace(LINES[3], LINES[3] + b" 0.5"), r"row 3 .*has not 6 numbers"),
    "no number": (BARE.replace(LINES[4], b"film 1 2 x 4 5 6"), "row 4 .*has not 6 numbers"),
    "no end of the last line": (BARE[:-3], "row 8 has no end"),
    "blank line": (BARE.replace(LINES[3], b""), "more behind 3 words"),
    "no UTF-8": (BARE.replace("naïve".encode(), b"na\xefve"), "row 5.*no UTF-8"),
    "no UTF-8 in binary": (BINARY.replace("naïve".encode(), b"na\xef\xefve"), "row 5.*no UTF-8"),
    "repeated word": (BARE.replace(b"bad ", b"good "), "'good' is the word of row 2 and of row 3"),
    "repeated word in binary": (TWICE, "'the' is the word of row 0 and of row 8"),
    "empty word": (BARE.replace(b"bad ", b" "), "word of row 3"),
    "endless line": (b"the " + b"1" * 400_000, "more than|first line"),
    "endless word": (b"9 6\n" + b"x" * 50_000, "has more than 4096 bytes"),
    "half a gzip file": (gzip.compress(TEXT)[:-30], "gzip"),
    "damaged gzip file": (gzip.compress(BINARY)[:-8] + bytes(8), "gzip"),
    "fasttext ends in settings": (FASTTEXT[:20], "ends too early"),
    "fasttext ends in words": (FASTTEXT[:120], "too early|at least"),
    "fasttext ends in vectors": (FASTTEXT[:-600], "at least|too early"),
    "fasttext ends in output": (FASTTEXT[:-4], "at least"),
    "fasttext goes on": (FASTTEXT + b"more", "more behind its matrices"),
    "fasttext of another version": (changed(FASTTEXT, 4, "<i", 99), "version 99"),
    "fasttext of no width": (changed(FASTTEXT, SETTINGS, "<i", -1), "vectors of -1 numbers"),
    "fasttext of other width": (changed(FASTTEXT, SETTINGS, "<i", 7), "words and buckets make"),
    "fasttext of absurd buckets": (changed(FASTTEXT, SETTINGS + 32, "<i", 2**31 - 1), "2,147,483,647 buckets"),
    "fasttext of endless n-grams": (changed(FASTTEXT, SETTINGS + 40, "<i", 2**30), "n-grams of 3 to"),
    "fasttext of negative words": (changed(FASTTEXT, SETTINGS + 60, "<i", -9), "-9 words"),
    "fasttext of absurd words": (
        changed(changed(FASTTEXT, SETTINGS + 56, "<i", 40_000_000), SETTINGS + 60, "<i", 40_000_000),
        "declares 40,000,000 words",
    ),
    "fasttext without words": (as_fasttext([], ROWS[:BUCKETS]), "0 entries"),
    "fasttext with many spoilt words": (FASTTEXT.replace("naïve".encode(), b"na\xef\xefve"), "no UTF-8"),
    "fasttext with output of absurd size": (
        as_fasttext(WORDS, ROWS, outputs=0)[:-16] + struct.pack("<2q", 10**15, 6),
        "declared as",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_files_are_named(what: str, tmp_path: Path) -> None:
    content, message = WRONG[what]
    path = write(tmp_path, "vectors.bin", content)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedFileError, match=message) as caught:
            read_word_vectors(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [BINARY, TEXT, BARE, FASTTEXT], ids=["binary", "text", "bare", "fasttext"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_cut_anywhere_is_no_other_error(content: bytes, packed: bool, tmp_path: Path) -> None:
    """Cut at the end of a line, the form without sizes is another whole file, as nothing in it says how long it is."""
    content = gzip.compress(content) if packed else content
    for end in range(0, len(content) - 1, 37):
        path = write(tmp_path, "cut.bin", content[:end])
        try:
            rows = len(read_word_vectors(path)["embedding.weight"])
        except DamagedFileError:
            continue
        assert content is BARE and rows < len(WORDS) + 1


def test_a_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated rows, packed to a two hundredth: stopped at what vectors can honestly weigh."""
    monkeypatch.setattr(_vector_stream, "_FREE_BYTES", 1 << 20)
    path = tmp_path / "bomb.txt.gz"
    block = b"\n".join(b"w%d 0 0 0 0 0 0 0 0 0 0 0" % number for number in range(100)) + b"\n"
    path.write_bytes(gzip.compress(block * 4000, compresslevel=9))
    with pytest.raises(UnsafeFileError, match="unpacks to"):
        read_word_vectors(path)


def test_sizes_that_a_packed_file_cannot_hold_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "vectors.gz", gzip.compress(b"3000000 300\n" + BINARY))
    with pytest.raises(DamagedFileError, match="packed"):
        read_word_vectors(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (as_fasttext(WORDS, ROWS, model=3, labels=1), "supervised"),
        (as_fasttext(WORDS, ROWS, quantised=1), "quantised"),
        (as_fasttext(WORDS, ROWS, pruned=5), "quantised"),
    ],
)
def test_other_fasttext_models_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsMismatchError, match=message):
        load_pretrained_model("fasttext", weights=write(tmp_path, "model.bin", content), device="cpu")


def test_a_few_spoilt_words_of_many_keep_their_rows(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(1500)]
    content = as_fasttext(words, vectors(len(words) + BUCKETS)).replace(b"word7\0", b"wor\xe47\0")
    state = read_word_vectors(write(tmp_path, "model.bin", content))
    assert len(state["embedding.weight"]) == 1550
    assert bytes(state["vocabulary"].numpy()).decode().split("\n")[7] == "\ufffd7"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("vocabulary", None, "embedding.weight, vocabulary and ngrams"),
        ("vocabulary", torch.tensor([255, 254], dtype=torch.uint8), "UTF-8"),
        ("vocabulary", torch.tensor(list(b"a\na"), dtype=torch.uint8), "twice"),
        ("vocabulary", torch.tensor(list(b"a\nb"), dtype=torch.uint8), "row"),
        ("vocabulary", torch.tensor([1.0]), "no text"),
        ("ngrams", torch.tensor([1]), "table"),
        ("ngrams", torch.tensor([3, 6, 2**40]), "table"),
        ("embedding.weight", torch.zeros(9), "table"),
    ],
)
def test_wrong_tensors_are_named(name: str, value: torch.Tensor | None, message: str, tmp_path: Path) -> None:
    state = read_word_vectors(write(tmp_path, "vectors.txt", BARE))
    state = {key: tensor for key, tensor in {**state, name: value}.items() if tensor is not None}
    save_file(state, tmp_path / "wrong.safetensors")
    with pytest.raises(WeightsMismatchError, match=re.escape(message)):
        load_pretrained_model("glove", weights=tmp_path / "wrong.safetensors", device="cpu")


def test_numbers_that_are_none_are_loaded_with_a_warning(tmp_path: Path) -> None:
    values = vectors()
    values[3, 2] = np.nan
    path = write(tmp_path, "vectors.bin", as_word2vec(WORDS, values))
    with pytest.warns(UserWarning, match="NaN"):
        load_pretrained_model("word2vec", weights=path, device="cpu")


def test_the_published_md5_is_checked(tmp_path: Path) -> None:
    path = write(tmp_path, "vectors.txt", BARE)
    digest = hashlib.md5(BARE, usedforsecurity=False).hexdigest()
    _check_md5(UrlSource("https://example.org/vectors.txt", None, md5=digest), path)
    with pytest.raises(DamagedFileError, match="MD5"):
        _check_md5(UrlSource("https://example.org/vectors.txt", None, md5="0" * 32), path)
