"""Weights from a stranger: nothing in them is run, and each gets an error with a name."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.hostile.pickles import write_all, write_torch_like

from neurenix.errors import DamagedFileError, UnsafeFileError, WeightsWarning
from neurenix.storage import file_sha256, read_tensors, write_tensors
from neurenix.transfer import load_pretrained_model

PROVE = bool(os.environ.get("NEURENIX_PROVE"))


def load_all(folder: Path, kind: str, timeout: float = 150) -> dict[str, Any]:
    """What a process of its own made of every file."""
    answer = folder.parent / "answer.json"
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("watched.py")), str(folder), str(answer), kind],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def test_nothing_in_a_weights_file_is_run(tmp_path: Path) -> None:
    folder, canary = tmp_path / "files", tmp_path / "canary"
    folder.mkdir()
    write_all(folder, canary, 295 if PROVE else 36)
    write_torch_like(folder, canary)
    found = load_all(folder, "weights")
    assert found["seen"] == [] and not canary.exists()
    wrong = {name: answers for name, answers in found["answers"].items() if not all(map(is_refused, answers))}
    assert not wrong
    print(f"{len(found['answers'])} hostile files, 0 executed, all refused by name; +{found['grown']:.0f} MiB")
    assert found["grown"] < 300


def is_refused(answer: str) -> bool:
    kinds = ("UnsafeFileError", "DamagedFileError", "WeightsMismatchError", "WeightsNotFoundError")
    return answer.startswith(kinds)


def test_the_watch_would_see_it(tmp_path: Path) -> None:
    """The proof above is worth something only if a loader that runs pickles is caught."""
    (tmp_path / "files").mkdir()
    write_all(tmp_path / "files", tmp_path / "canary", 1)
    script = f"""
import pickle, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tests.hostile import watched
watched.loaders = lambda kind: [lambda path: pickle.loads(path.read_bytes())]
watched.main(Path({str(tmp_path / "files")!r}), Path({str(tmp_path / "answer.json")!r}), "weights")
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=100)
    found = json.loads((tmp_path / "answer.json").read_text())
    assert (tmp_path / "canary").exists()
    assert any(event.startswith("pickle.find_class") for event in found["seen"])
    assert any(event.startswith("os.system") for event in found["seen"])


# --- safetensors ------------------------------------------------------------------------------------------------


def packed(header: Any, data: bytes = b"\0" * 64) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str = "F32", shape: Any = (4,), begin: Any = 0, end: Any = 16) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


CRAFTED = {
    "empty": b"",
    "short": b"\x01\x02",
    "header of 2^63": struct.pack("<Q", 1 << 63) + b"{}",
    "header longer than the file": struct.pack("<Q", 500) + b"{}",
    "no json": packed(b"not json"),
    "a list": packed([1, 2]),
    "deep": packed(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "broken utf-8": packed(b'{"\xff\xfe": 1}'),
    "twice": packed(
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},' * 1 + json.dumps({"a": entry()}).encode()[1:],
        b"\0" * 16,
    ),
    "overlap": packed({"a": entry(), "b": entry(begin=8, end=24)}, b"\0" * 24),
    "hole": packed({"a": entry(), "b": entry(begin=24, end=40)}, b"\0" * 40),
    "trailing": packed({"a": entry()}, b"\0" * 20),
    "missing bytes": packed({"a": entry()}, b"\0" * 8),
    "shape overflow": packed({"a": entry(shape=(1 << 62, 1 << 62, 0), end=0)}, b""),
    "shape product": packed({"a": entry(shape=(1 << 40, 1 << 40))}),
    "negative": packed({"a": entry(shape=(-4,))}),
    "float shape": packed({"a": entry(shape=(4.0,))}),
    "true as a length": packed({"a": entry(shape=(True, 4))}, b"\0" * 16),
    "offsets turned": packed({"a": entry(begin=16, end=0)}),
    "offsets as text": packed({"a": entry(begin="0", end="16")}),
    "unknown dtype": packed({"a": entry(dtype="F33")}),
    "an object dtype": packed({"a": entry(dtype="O")}),
    "nothing reuses an offset": packed({"a": entry(), "b": entry(shape=(0,), begin=4, end=4)}, b"\0" * 16),
    "extra keys": packed({"a": {**entry(), "code": "import os"}}, b"\0" * 16),
    "metadata of numbers": packed({"__metadata__": {"a": 1}, "a": entry()}, b"\0" * 16),
}


@pytest.mark.parametrize("content", CRAFTED.values(), ids=CRAFTED)
def test_crafted_headers_are_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"a.safetensors is not a whole safetensors file"):
        read_tensors(tmp_path / "a.safetensors")


def test_a_pickle_under_another_name_says_what_it_is(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "a.safetensors", _use_new_zipfile_serialization=False)
    with pytest.raises(UnsafeFileError, match="is a pickle under another name"):
        read_tensors(tmp_path / "a.safetensors")


def mutated(content: bytes, seed: int) -> bytes:
    """One of ten kinds of damage; the header is hit as often as the data."""
    chance, length = random.Random(seed), int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    name = chance.choice([key for key in header if key != "__metadata__"])
    kind, new = seed % 10, bytearray(content)
    place = chance.randrange(8 + length) if seed % 20 < 10 else chance.randrange(len(content))
    if kind < 4:
        new[place] ^= 1 << chance.randrange(8)
        return bytes(new)
    if kind == 4:
        return content[: chance.randrange(len(content))]
    if kind == 5:
        return content + chance.randbytes(chance.randrange(1, 50))
    field = chance.choice(["dtype", "shape", "data_offsets"])
    values = {
        "dtype": ["F64", "BF16", "O", None, "F32"],
        "shape": [[], [0], [1 << 40], [-1], ["4"], [[4]], [4, 4, 4, 4, 4]],
        "data_offsets": [[0, 0], [0, 1 << 63], [8, 4], [0], ["a", "b"], [0, 16]],
    }
    header[name][field] = chance.choice(values[field])
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def test_mutated_files_end_in_a_name_or_in_whole_tensors(tmp_path: Path) -> None:
    """Structure is found by the header alone; any changed byte by the hash, where one is known."""
    generator = torch.Generator().manual_seed(0)
    tensors = {f"layer.{i}.weight": torch.randn(7, 5, generator=generator) for i in range(6)}
    write_tensors(tmp_path / "good.safetensors", {**tensors, "empty": torch.zeros(0)})
    content, sha256 = (tmp_path / "good.safetensors").read_bytes(), file_sha256(tmp_path / "good.safetensors")
    folder = tmp_path / "files"
    folder.mkdir()
    for seed in range(1000 if PROVE else 100):
        changed = mutated(content, seed)
        path = folder / f"{seed:04d}.safetensors"
        path.write_bytes(changed)
        if changed != content:
            with pytest.raises((DamagedFileError, UnsafeFileError)):
                read_tensors(path, sha256=sha256)
    found = load_all(folder, "tensors")
    answers = [answer for answers in found["answers"].values() for answer in answers]
    named = [answer for answer in answers if is_refused(answer)]
    print(f"{len(answers)} mutated files: {len(named)} refused by their structure, {len(answers) - len(named)} loaded")
    assert len(named) + answers.count("loaded") == len(answers) and found["seen"] == [] and found["grown"] < 250


def test_weights_that_are_not_finite_are_reported(tmp_path: Path) -> None:
    model = load_pretrained_model("resnet18", weights=None, device="cpu")
    state = {name.removeprefix("trunk."): tensor for name, tensor in model.state_dict().items() if "trunk" in name}
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    write_tensors(tmp_path / "w.safetensors", state)
    with pytest.warns(WeightsWarning, match=r"1 tensors .* NaN or infinity .*layer1\.0\.conv1\.weight"):
        load_pretrained_model(
            "resnet18", weights=tmp_path / "w.safetensors", include_top=False, pooling="avg", device="cpu"
        )


@pytest.mark.parametrize("number", range(50 if PROVE else 5))
def test_a_file_that_changes_while_it_is_read(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash is of the very bytes that are parsed: what happens to the file before or after does not matter."""
    path = tmp_path / "a.safetensors"
    sha256 = write_tensors(path, {"a": torch.arange(1000.0)})
    read, chance = Path.read_bytes, random.Random(number)

    def interrupted(self: Path) -> bytes:
        content = read(self)
        self.write_bytes(content[: chance.randrange(len(content))])  # truncated under a reader's feet
        return content if number % 2 else read(self)

    monkeypatch.setattr(Path, "read_bytes", interrupted)
    if number % 2:
        assert torch.equal(read_tensors(path, sha256=sha256)["a"], torch.arange(1000.0))
    else:
        with pytest.raises(DamagedFileError):
            read_tensors(path, sha256=sha256)
