"""Freed memory stays in the process during a fit, and goes back after it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from neurenix import memory
from neurenix.memory import kept_memory
from neurenix.transfer import FeatureExtractor, Finetuner

MMAP_MAX, TRIM_THRESHOLD = -4, -1
BEGUN = [(MMAP_MAX, 0), (TRIM_THRESHOLD, -1)]
ENDED = [(MMAP_MAX, 65_536), (-3, 32 << 20), (TRIM_THRESHOLD, 64 << 20), "trimmed"]

FAULTS = """
import ctypes, json, resource
from neurenix.memory import kept_memory

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
PAGES = 12_000
SIZE = PAGES * resource.getpagesize()

def resident():
    return int(open("/proc/self/statm").read().split()[1])

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        place = library.malloc(SIZE)
        library.memset(place, 1, SIZE)
        library.free(place)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / PAGES

found = {"before": faults(10), "resident before": resident() / PAGES}
with kept_memory():
    found["inside"] = faults(10)
    found["resident inside"] = resident() / PAGES
found |= {"resident after": resident() / PAGES, "after": faults(10)}
print(json.dumps(found))
"""

glibc = pytest.mark.skipif(memory._glibc() is None, reason="this process has another C library than glibc")


class Library:
    """Notes what would be set."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def mallopt(self, name: int, value: int) -> int:
        self.calls.append((name, value))
        return 1

    def malloc_trim(self, _: int) -> int:
        self.calls.append("trimmed")
        return 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    noted = Library()
    monkeypatch.setattr(memory, "_glibc", lambda: noted)
    for name in (*memory._CHOICES, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    yield noted
    assert memory._users == 0


@glibc
@pytest.mark.parametrize("chosen", [{}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1048576"}])
def test_pages_are_taken_once_and_given_back(chosen: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], env=chosen, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["before"] > 9 and found["after"] > 9  # ten times a page for each page
    assert found["inside"] > 9 if chosen else found["inside"] < 2
    if not chosen:
        assert found["resident inside"] > found["resident before"] + 0.9
    assert found["resident after"] < found["resident before"] + 0.2


def test_the_last_block_gives_back(library: Library) -> None:
    with kept_memory():
        assert library.calls == BEGUN
        with kept_memory():
            pass
        assert library.calls == BEGUN
    assert library.calls == BEGUN + ENDED


def test_an_error_gives_back(library: Library) -> None:
    with pytest.raises(KeyError), kept_memory():
        raise KeyError
    assert library.calls == BEGUN + ENDED


def test_blocks_of_two_threads_overlap(library: Library) -> None:
    inside, leave = threading.Event(), threading.Event()

    @kept_memory()
    def other() -> None:
        inside.set()
        leave.wait(60)

    thread = threading.Thread(target=other)
    with kept_memory():
        thread.start()
        assert inside.wait(60)
    assert library.calls == BEGUN
    leave.set()
    thread.join()
    assert library.calls == BEGUN + ENDED


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_TRIM_THRESHOLD_", "1"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")]
)
def test_what_the_user_chose_stays(name: str, value: str, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with kept_memory():
        pass
    assert library.calls == []


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Musl:
        def __init__(self, _: None) -> None:
            pass

    monkeypatch.setattr(memory.ctypes, "CDLL", Musl)
    monkeypatch.setattr(memory, "_glibc", memory._glibc.__wrapped__)
    with kept_memory():
        assert memory._users == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda tuner, data, folder: tuner.fit(data, epochs=1),
        lambda tuner, data, folder: tuner.find_lr(data, steps=10),
        lambda tuner, data, folder: tuner.evaluate(data),
        lambda tuner, data, folder: tuner.predict(data[0], batch_size=8),
        lambda tuner, data, folder: FeatureExtractor(tuner.model, "0").extract(data),
        lambda tuner, data, folder: FeatureExtractor(tuner.model, "0").cache_features(data, cache_dir=folder),
    ],
    ids=["fit", "find_lr", "evaluate", "predict", "extract", "cache_features"],
)
def test_memory_is_kept_by(call: Callable[..., object], library: Library, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    inputs: Tensor = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
    call(Finetuner(network, num_classes=3), (inputs, torch.arange(24) % 3), tmp_path)
    assert library.calls[: len(BEGUN)] == BEGUN and library.calls[-len(ENDED) :] == ENDED


def test_a_single_batch_is_predicted_without(library: Library) -> None:
    """Calls with one sample each would otherwise give their memory back each time, and take it again."""
    tuner = Finetuner(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), num_classes=3)
    tuner.predict(torch.zeros(1, 6))
    assert library.calls == []
