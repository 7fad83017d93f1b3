"""TensorFlow checkpoints: read as written, and refused where they are damaged or hostile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tensor_bundles import entry, index_of, masked, number, slow_crc32c, sorted_table, text, write_bundle

from neurenix.errors import DamagedFileError, WeightsMismatchError, WeightsNotFoundError
from neurenix.models.sources import read_tensor_bundle
from neurenix.models.sources._crc32c import crc32c, masked_crc32c
from neurenix.models.sources._sorted_table import read_sorted_table


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"123456789", 0xE3069283),  # the check value of every list of CRCs
        (bytes(32), 0x8A9136AA),  # RFC 3720, appendix B.4, as are the next three
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (b"", 0),
    ],
)
def test_checksum_of_published_vectors(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum


@pytest.mark.parametrize("size", [1, 255, 256, 257, 511, 512, 5000])
def test_checksum_bit_by_bit(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    assert crc32c(data) == slow_crc32c(data)
    assert masked_crc32c(memoryview(data)) == masked(data)


def test_masked_checksum_of_leveldb() -> None:
    """LevelDB's and TensorFlow's crc32c_test: the mask changes a value, and twice changes it again."""
    plain = crc32c(b"foo")
    assert masked_crc32c(b"foo") == ((plain >> 15 | plain << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF != plain


def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    found = {f"body/layer_{n}/kernel": random.normal(size=(3, 5)).astype(np.float32) for n in range(50)}
    return found | {
        "a/scalar": np.array(7, dtype=np.int64),
        "a/empty": np.zeros((0, 4), dtype=np.float32),
        "half": random.normal(size=(2, 2, 2)).astype(np.float16),
        "wide": random.normal(size=9),
        "yes": np.array([True, False]),
        "whole": np.arange(6, dtype=np.int32),
    }


def test_reads_what_was_written(tmp_path: Path) -> None:
    written = tensors()
    state = read_tensor_bundle(write_bundle(tmp_path / "model.ckpt", written))
    assert list(state) == sorted(written)
    for name, tensor in state.items():
        assert np.array_equal(tensor.numpy(), written[name]) and tensor.numpy().dtype == written[name].dtype
    state["whole"].add_(1)  # numbers of its own, not of the file


def test_bfloat16_and_several_shards(tmp_path: Path) -> None:
    value = torch.randn(4, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    content = value.view(torch.uint8).numpy().tobytes()
    (tmp_path / "m.data-00001-of-00002").write_bytes(b"....." + content)
    (tmp_path / "m.index").write_bytes(index_of({"x": entry(14, (4,), 5, 8, masked(content), number(3, 1))}, shards=2))
    assert torch.equal(read_tensor_bundle(tmp_path / "m.index")["x"], value)


def test_only_what_is_wanted_is_looked_at(tmp_path: Path) -> None:
    index = write_bundle(tmp_path / "m", {"keep": np.ones(2, dtype=np.float32)})
    entries = dict(read_sorted_table(index.read_bytes(), "m"))
    entries.pop(b"")
    texts = {"graph": entry(7, (), 10**12, 3, 0)}
    index.write_bytes(index_of({"keep": entries[b"keep"], **texts}))
    assert list(read_tensor_bundle(index, keep=lambda name: name == "keep")) == ["keep"]
    with pytest.raises(WeightsMismatchError, match="type 7"):
        read_tensor_bundle(index)


def test_missing_data_file(tmp_path: Path) -> None:
    index = write_bundle(tmp_path / "m", tensors())
    (tmp_path / "m.data-00000-of-00001").unlink()
    with pytest.raises(WeightsNotFoundError, match="m.data-00000-of-00001"):
        read_tensor_bundle(index)


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    index = write_bundle(tmp_path / "m", {"x": np.ones(3, dtype=np.float32)})
    whole = index.read_bytes()
    for length in range(len(whole)):
        index.write_bytes(whole[:length])
        with pytest.raises(DamagedFileError):
            read_tensor_bundle(index)


def test_every_changed_byte_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    index = write_bundle(tmp_path / "m", {"x": np.arange(3, dtype=np.float32)})
    whole = index.read_bytes()
    for place in range(len(whole)):
        index.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            state = read_tensor_bundle(index)
        except (DamagedFileError, WeightsMismatchError):
            continue
        # what has no checksum: the padding behind the handles
        assert place >= len(whole) - 48 and torch.equal(state["x"], torch.arange(3.0))


def test_changed_numbers(tmp_path: Path) -> None:
    index = write_bundle(tmp_path / "m", tensors())
    data = tmp_path / "m.data-00000-of-00001"
    content = data.read_bytes()
    data.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamagedFileError, match="checksum of its numbers"):
        read_tensor_bundle(index)
    data.write_bytes(content[:-1])
    with pytest.raises(DamagedFileError, match="are left"):
        read_tensor_bundle(index)


ONES = np.ones(4, dtype=np.float32).tobytes()
HOSTILE = {
    "offset outside": (entry(1, (4,), 1 << 40, 16, masked(ONES)), DamagedFileError, "are left"),
    "size outside": (entry(1, (1 << 28,), 0, 1 << 30, 0), DamagedFileError, "are left"),
    "huge shape": (entry(1, (1 << 30, 1 << 30, 1 << 30), 0, 16, masked(ONES)), DamagedFileError, "takes"),
    "huge side": (entry(1, (0, 1 << 40), 0, 0, 0), DamagedFileError, "memory"),
    "negative side": (entry(1, (-1 % 2**64, 4), 0, 16, 0), DamagedFileError, "memory"),
    "other size": (entry(1, (5,), 0, 16, masked(ONES)), DamagedFileError, "takes 20 bytes"),
    "no entry": (b"", WeightsMismatchError, "type 0"),
    "type": (entry(8, (4,), 0, 16, masked(ONES)), WeightsMismatchError, "type 8"),
    "sliced": (entry(1, (4,), 0, 16, masked(ONES), text(7, b"")), WeightsMismatchError, "in parts"),
    "shard": (entry(1, (4,), 0, 16, masked(ONES), number(3, 9)), DamagedFileError, "data file 9"),
    "field longer": (entry(1, (4,), 0, 16, 0) + b"\x12\x7f", DamagedFileError, "longer than its message"),
    "group": (b"\x0b", DamagedFileError, "kind 3"),
    "endless number": (b"\x08" + b"\xff" * 20, DamagedFileError, "no end"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_entries(case: str, tmp_path: Path) -> None:
    value, error, words = HOSTILE[case]
    (tmp_path / "m.data-00000-of-00001").write_bytes(ONES)
    (tmp_path / "m.index").write_bytes(index_of({"x": value}))
    with pytest.raises(error, match=words):
        read_tensor_bundle(tmp_path / "m.index")


def test_entries_that_share_bytes(tmp_path: Path) -> None:
    same = entry(1, (4,), 0, 16, masked(ONES))
    (tmp_path / "m.data-00000-of-00001").write_bytes(ONES)
    (tmp_path / "m.index").write_bytes(index_of({"x": same, "y": same}))
    with pytest.raises(DamagedFileError, match="16 to 16 are left"):
        read_tensor_bundle(tmp_path / "m.index")


def test_hostile_tables(tmp_path: Path) -> None:
    def refused(content: bytes, error: type[Exception], words: str) -> None:
        with pytest.raises(error, match=words):
            read_sorted_table(content, "table")

    refused(sorted_table([(b"a", b"1")], kind=1), WeightsMismatchError, "snappy")
    refused(sorted_table([(b"a", b"1")], kind=9), WeightsMismatchError, "kind 9")
    refused(sorted_table([(b"b", b"1"), (b"a", b"2")]), DamagedFileError, "out of order")
    refused(sorted_table([(b"a", b"1")])[:-8] + bytes(8), DamagedFileError, "magic")
    refused(b"PK" * 40, DamagedFileError, "magic")
    with pytest.raises(DamagedFileError, match="0 data files"):
        (tmp_path / "m.index").write_bytes(sorted_table([(b"x", b"")]))
        read_tensor_bundle(tmp_path / "m.index")
    with pytest.raises(WeightsMismatchError, match="big-endian"):
        (tmp_path / "m.index").write_bytes(index_of({}, header=number(2, 1)))
        read_tensor_bundle(tmp_path / "m.index")
