"""Torch files with NumPy arrays in them are read without NumPy's unpickling, and nothing else comes in."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from neurenix.errors import DamagedFileError, UnsafeFileError
from neurenix.models.audio._torch_arrays import _Array, load_with_arrays
from neurenix.models.sources import Noted


def test_arrays_become_tensors(tmp_path: Path) -> None:
    arrays = {
        "rows": np.arange(6, dtype=np.float64).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "whole": np.arange(4),
        "deep": {"tensor": torch.ones(2), "number": 3},
    }
    torch.save(arrays, tmp_path / "arrays.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "arrays.pth", weights_only=True)
    before = set(torch.serialization.get_safe_globals())
    found = load_with_arrays(tmp_path / "arrays.pth")
    assert set(torch.serialization.get_safe_globals()) == before
    for name in ("rows", "columns", "whole"):
        np.testing.assert_array_equal(found[name].numpy(), arrays[name])
    assert torch.equal(found["deep"]["tensor"], torch.ones(2)) and found["deep"]["number"] == 3


def test_other_arrays_are_left_out(tmp_path: Path) -> None:
    content = {
        "objects": np.array([{"a": 1}, None], dtype=object),
        "big": np.arange(3, dtype=">i8"),
        "texts": np.array(["a", "b"]),
        "scalar": np.float64(0.5),
        "kept": torch.zeros(1),
    }
    torch.save(content, tmp_path / "arrays.pth")
    assert list(load_with_arrays(tmp_path / "arrays.pth")) == ["kept"]


def noted(kind: str) -> Noted:
    record = Noted(kind, False, True)
    record.__setstate__((3, "<", None, None, None, -1, -1, 0))
    return record


@pytest.mark.parametrize(
    "state",
    [
        (1, (4,), noted("f8"), False, b"\0" * 8),  # says more numbers than it has
        (1, (-1,), noted("f8"), False, b"\0" * 8),
        (1, (1,), noted("O8"), False, b"\0" * 8),  # bytes as addresses of objects
        (1, (1,), noted("f8"), False, [object()]),
        (1, (1,), "f8", False, b"\0" * 8),
        (1, 1, noted("f8"), False, b"\0" * 8),
        (),
    ],
)
def test_arrays_that_lie_are_none(state: object) -> None:
    array = _Array()
    array.__setstate__(state)
    assert array.tensor() is None


def test_code_and_damage_are_refused(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> object:
            return (print, ("never",))

    file = tmp_path / "runs.pth"
    torch.save({"model": torch.ones(2), "other": Runs()}, file)
    with pytest.raises(UnsafeFileError, match=r"runs\.pth"):
        load_with_arrays(file)
    torch.save({"model": np.ones(200)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:300])
    with pytest.raises(DamagedFileError, match=r"cut\.pth"):
        load_with_arrays(tmp_path / "cut.pth")
