"""A full disk: a named error with the sizes, the previous file whole, nothing half written."""

from __future__ import annotations

import contextlib
import errno
import resource
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tests.faults.jobs import Noisy, digest, fit, network

from neurenix.errors import DiskFullError, SaveFailedWarning
from neurenix.storage import read_json, read_state, read_tensors, write_json, write_state, write_tensors
from neurenix.transfer import FeatureExtractor, Finetuner


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", [0, 1, 100, 5_000, 39_000])
@pytest.mark.parametrize(
    ("write", "read"),
    [
        (lambda folder, value: write_json(folder / "a.json", [value] * 20_000), lambda f: read_json(f / "a.json")),
        (
            lambda folder, value: write_tensors(folder / "a.safetensors", {"a": torch.full((10_000,), float(value))}),
            lambda f: read_tensors(f / "a.safetensors"),
        ),
        (
            lambda folder, value: write_state(folder, "a", {"a": torch.full((10_000,), float(value))}),
            lambda f: [read_state(path) for path in f.iterdir()],
        ),
    ],
    ids=["json", "tensors", "state"],
)
def test_the_file_before_stays(
    write: Callable[[Path, int], object], read: Callable[[Path], object], size: int, tmp_path: Path
) -> None:
    write(tmp_path, 1)
    before = everything(tmp_path)
    with largest_file(size), pytest.raises(DiskFullError, match=r"\d+ bytes are needed, \d+ are free") as caught:
        write(tmp_path, 2)
    assert caught.value.errno == errno.EFBIG
    assert everything(tmp_path) == before
    read(tmp_path)


def test_a_saved_model_stays(tmp_path: Path) -> None:
    tuner = Finetuner(network(), 3)
    tuner.save(tmp_path / "model")
    before = everything(tmp_path)
    tuner.fit(Noisy(8), epochs=1, run=False)
    with largest_file(3_000), pytest.raises(DiskFullError):
        tuner.save(tmp_path / "model")
    assert everything(tmp_path) == before
    Finetuner.load(tmp_path / "model", model=network())


def test_a_feature_cache_stays(tmp_path: Path) -> None:
    extractor = FeatureExtractor(network(), layers=["1"])
    with largest_file(1_000), pytest.raises(DiskFullError):
        extractor.cache_features([(image, 0) for image in Noisy(40).images], cache_dir=tmp_path, progress=False)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    with largest_file(100_000):
        extractor.cache_features([(image, 0) for image in Noisy(40).images], cache_dir=tmp_path, progress=False)


def test_a_fit_ends_with_the_error_or_goes_on_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(tmp_path / "whole")
    write = Path.write_bytes
    left = [12]

    def full(path: Path, content: bytes) -> int:
        left[0] -= "step-" in path.name
        if left[0] <= 0 and "step-" in path.name:
            write(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFullError, match="No space left on device"):
        fit(tmp_path / "raises")
    monkeypatch.setattr(Path, "write_bytes", write)
    assert len(list((tmp_path / "raises" / "checkpoints").iterdir())) == 2
    assert digest(fit(tmp_path / "raises")) == digest(whole)

    left[0] = 12
    monkeypatch.setattr(Path, "write_bytes", full)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warned = fit(tmp_path / "warns", on_save_error="warn")
    assert digest(warned) == digest(whole)
    assert {entry.category for entry in caught} == {SaveFailedWarning} and len(caught) > 5
    assert "was not saved: no room to write" in str(caught[0].message)


def test_temporary_files_never_leave_the_target_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename from another file system is no rename: the temporary folder is never used."""
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    fit(tmp_path / "run")
    Finetuner(network(), 3).save(tmp_path / "model")
