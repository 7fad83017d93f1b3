from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import neurenix
from neurenix import storage
from neurenix.errors import DamagedFileError, UnsafeFileError


def test_writes_and_reads_json(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "new" / "a.json", {"name": "Žižka", "values": [1, 2.5, None]})
    assert storage.read_json(tmp_path / "new" / "a.json") == {"name": "Žižka", "values": [1, 2.5, None]}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_that_others_cannot_read_is_not_written(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(tmp_path / "a.json", value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": ', b"\xff\xfe", b"[" * 100_000])
def test_damaged_json_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DamagedFileError, match="a.json is not valid JSON"):
        storage.read_json(tmp_path / "a.json")


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a"
    storage.write_bytes(target, b"old")
    with pytest.raises(RuntimeError, match="halfway"), storage.replacing(target) as temporary:
        temporary.write_bytes(b"ne")
        raise RuntimeError("halfway")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a"
    storage.write_bytes(target, b"old")

    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        storage.write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a"
    storage.write_bytes(target, b"old")
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(neurenix.__file__).parents[1])!r})
from pathlib import Path
from neurenix.storage import replacing
with replacing(Path({str(target)!r})) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"


def test_tensors_come_back_bit_by_bit(tmp_path: Path) -> None:
    tensors = {
        "float": torch.tensor([1.0, -0.0, float("nan"), float("inf")]),
        "bfloat16": torch.arange(6).bfloat16().reshape(2, 3),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "whole": torch.tensor(2**60),
        "empty": torch.zeros(0, 3),
    }
    digest = storage.write_tensors(tmp_path / "t.safetensors", tensors, {"who": "us"})
    assert digest == storage.file_sha256(tmp_path / "t.safetensors")
    back = storage.read_tensors(tmp_path / "t.safetensors", sha256=digest)
    assert {k: storage.tensor_digest(v) for k, v in back.items()} == {
        k: storage.tensor_digest(v) for k, v in tensors.items()
    }


def test_read_tensors_do_not_hang_on_the_file(tmp_path: Path) -> None:
    """A mapped file that shrinks would kill the process on the next access."""
    path = tmp_path / "t.safetensors"
    storage.write_tensors(path, {"a": torch.arange(100_000)})
    tensors = storage.read_tensors(path)
    os.truncate(path, 0)
    assert int(tensors["a"].sum()) == 99_999 * 50_000


@pytest.mark.parametrize("cut", [0, 4, 20, -1])
def test_a_cut_tensor_file_is_named(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    storage.write_tensors(path, {"a": torch.arange(10)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DamagedFileError, match="t.safetensors is not a whole safetensors file"):
        storage.read_tensors(path)


def test_a_changed_byte_is_found_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    digest = storage.write_tensors(path, {"a": torch.arange(10)})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=f"expected {digest[:16]}"):
        storage.read_tensors(path, sha256=digest)


@pytest.mark.parametrize("expected", [None, "2cf24dba", hashlib.sha256(b"hello").hexdigest().upper()])
def test_a_hash_may_be_a_prefix(expected: str | None, tmp_path: Path) -> None:
    """SHA-256 of `hello`, as published with the algorithm's many examples, begins with 2cf24dba."""
    (tmp_path / "a").write_bytes(b"hello")
    storage.check_hash(tmp_path / "a", storage.file_sha256(tmp_path / "a"), expected)


def test_digests_see_dtype_shape_and_bytes() -> None:
    base = torch.arange(6, dtype=torch.int32)
    others = [base.float(), base.reshape(2, 3), base + 1, base.view(torch.float32)]
    assert len({storage.tensor_digest(tensor) for tensor in [base, *others]}) == 5
    assert storage.tensor_digest(base) == storage.tensor_digest(base.clone())


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../outside", "link/file"])
def test_paths_that_leave_their_folder_are_refused(name: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(UnsafeFileError, match="points outside"):
        storage.inside(root, name)


@pytest.mark.parametrize("name", ["a", "a/b", "a/../b", "."])
def test_paths_inside_are_followed(name: str, tmp_path: Path) -> None:
    assert storage.inside(tmp_path, name).is_relative_to(tmp_path)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURENIX_HOME", "/somewhere")
    assert storage.cache_folder() == Path("/somewhere")
    monkeypatch.delenv("NEURENIX_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert storage.cache_folder() == Path("/caches/neurenix")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert storage.cache_folder() == Path.home() / ".cache" / "neurenix"
