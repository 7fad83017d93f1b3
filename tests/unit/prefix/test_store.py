"""Rows that are put are got again, in any order, from memory or from a file of which nothing is left behind."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from neurenix.training.prefix.store import (
    Boundary,
    Column,
    FileRows,
    RowStore,
    bytes_per_sample,
    columns_of,
)

COUNT, WIDTH = 41, 6
PLACES = ["memory", "file"]
TOKENS = frozenset({"tokens", "attention_mask"})
BF16 = 2.0**-8  # half the gap from 1 to the next number


@pytest.fixture(params=PLACES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Where a store's files are; None for memory."""
    return tmp_path / "rows" if request.param == "file" else None


def samples(generator: torch.Generator, tokens: bool) -> list[dict[str, Tensor]]:
    """What each of COUNT samples has at the boundary; by token, of 1 to 9 tokens."""
    found = []
    for _ in range(COUNT):
        sample = {
            "features": torch.randn(WIDTH, generator=generator) * 10.0 ** (len(found) % 7 - 3),
            "maps": torch.randn(2, 3, 4, generator=generator),
            "number": torch.randn((), generator=generator),
            "whole": torch.randint(-(2**40), 2**40, (3,), generator=generator),
            "flags": torch.rand(5, generator=generator) > 0.5,
            "half": torch.randn(4, generator=generator).bfloat16(),
        }
        if tokens:
            length = int(torch.randint(1, 10, (), generator=generator))
            sample["tokens"] = torch.randn(length, WIDTH, generator=generator)
            sample["attention_mask"] = torch.ones(length, dtype=torch.long)
        found.append(sample)
    return found


def batch(chosen: list[dict[str, Tensor]], padding: float, longer: int = 0) -> Boundary:
    """Samples side by side, those with fewer tokens filled up. longer: than the longest of them."""
    boundary = {}
    for name in chosen[0]:
        rows = [sample[name] for sample in chosen]
        if name in TOKENS:
            longest = max(len(row) for row in rows) + longer
            fill = 0 if name == "attention_mask" else padding
            rows = [torch.cat([row, row.new_full((longest - len(row), *row.shape[1:]), fill)]) for row in rows]
        boundary[name] = torch.stack(rows)
    return boundary


def filled(
    known: list[dict[str, Tensor]],
    folder: Path | None,
    generator: torch.Generator,
    storage: str = "auto",
    longer: int = 0,
) -> RowStore:
    """A store of samples, put in at random in batches of uneven size, with rubbish where there are no tokens."""
    first = batch(known[:2], 7.0)
    tokens = TOKENS & first.keys()
    lengths = torch.tensor([len(sample["attention_mask"]) for sample in known]) if tokens else None
    store = RowStore(columns_of(first, tokens, storage), len(known), lengths=lengths, folder=folder)
    order, sizes = torch.randperm(len(known), generator=generator), iter([1, 7, 2, 13, 5] * len(known))
    while len(order):
        size = next(sizes)
        indices, order = order[:size], order[size:]
        store.put(indices, batch([known[int(index)] for index in indices], 7.0, longer))
    return store


@pytest.mark.parametrize("longer", [0, 3], ids=["", "longer"])
@pytest.mark.parametrize("tokens", [False, True], ids=["samples", "tokens"])
def test_what_is_put_is_got_in_any_order(
    folder: Path | None, tokens: bool, longer: int, generator: torch.Generator
) -> None:
    known = samples(generator, tokens)
    store = filled(known, folder, generator, longer=longer)
    assert len(store) == COUNT
    orders = [torch.randperm(COUNT, generator=generator)[: 1 + number] for number in range(0, COUNT, 5)]
    for order in [*orders, torch.arange(COUNT), torch.arange(COUNT).flip(0), torch.tensor([4, 4, 5, 4])]:
        got, wanted = store.get(order), batch([known[int(index)] for index in order], 0.0)
        assert got.keys() == wanted.keys()
        for name, rows in wanted.items():
            assert got[name].dtype == rows.dtype and torch.equal(got[name], rows), name


@pytest.mark.parametrize(("storage", "kept"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("int8", torch.int8)])
@pytest.mark.parametrize("tokens", [False, True], ids=["samples", "tokens"])
def test_storage_rounds_within_its_bounds(
    folder: Path | None, storage: str, kept: torch.dtype, tokens: bool, generator: torch.Generator
) -> None:
    known = samples(generator, tokens)
    store = filled(known, folder, generator, storage)
    got, wanted = store.get(torch.arange(COUNT)), batch(known, 0.0)
    kinds = {column.name: column.kept for column in store.columns}
    rounded = set()
    for name, rows in wanted.items():
        assert got[name].dtype == rows.dtype
        if not rows.is_floating_point():
            assert kinds[name] == rows.dtype and torch.equal(got[name], rows), name
            continue
        assert kinds[name] == kept
        flat = rows.float().flatten(2 if name in TOKENS else 1) if rows.ndim > 1 else rows.float()[:, None]
        gap = (got[name].float().view_as(flat) - flat).abs()
        scale = flat.abs().amax(-1, keepdim=True) / 127
        # the value that comes back is rounded once more, to its own type
        own = flat.abs() * torch.finfo(rows.dtype).eps
        bound = {"fp32": torch.zeros_like(flat), "bf16": BF16 * flat.abs(), "int8": scale / 2 + own}[storage]
        assert bool((gap <= bound * (1 + 1e-5)).all()), name
        rounded |= {name} if gap.any() else set()
    if storage == "fp32":
        assert not rounded
    else:
        assert rounded >= {"features", "maps", *(["tokens"] if tokens else [])}


def test_a_row_of_zeros_and_a_huge_one_have_scales_of_their_own(folder: Path | None) -> None:
    rows = torch.stack([torch.zeros(3), torch.tensor([1e30, -1e30, 5e29]), torch.tensor([1e-20, 0.0, -1e-20])])
    store = RowStore(columns_of({"a": rows}, frozenset(), "int8"), 3, folder=folder)
    store.put(torch.arange(3), {"a": rows})
    torch.testing.assert_close(store.get(torch.arange(3))["a"], rows, rtol=0.5 / 63, atol=0.0)


def test_written_tells_which_rows_are_there(folder: Path | None, generator: torch.Generator) -> None:
    known = samples(generator, tokens=False)
    store = RowStore(columns_of(batch(known[:2], 0.0), frozenset()), COUNT, folder=folder)
    everything = torch.arange(COUNT)
    assert not store.written(everything).any()
    store.put(torch.tensor([5, 2]), batch([known[5], known[2]], 0.0))
    assert store.written(everything).nonzero().flatten().tolist() == [2, 5]
    assert store.written(torch.tensor([5, 4, 2])).tolist() == [True, False, True]
    store.put(torch.tensor([5, 7]), batch([known[0], known[7]], 0.0))  # a row is what was put last
    assert torch.equal(store.get(torch.tensor([5]))["features"][0], known[0]["features"])
    assert store.written(everything).nonzero().flatten().tolist() == [2, 5, 7]


def test_size_is_that_of_rows_and_scales(folder: Path | None) -> None:
    lengths = torch.tensor([3, 1, 5])
    boundary = {"a": torch.zeros(3, 2, 5), "b": torch.zeros(3, 5, 7), "c": torch.zeros(3, 5, dtype=torch.long)}
    tokens = frozenset({"b", "c"})
    for storage, wanted in {
        "auto": 3 * 40 + 9 * 28 + 9 * 8,
        "bf16": 3 * 20 + 9 * 14 + 9 * 8,
        "int8": 3 * (10 + 4) + 9 * (7 + 4) + 9 * 8,
    }.items():
        columns = columns_of(boundary, tokens, storage)
        assert RowStore(columns, 3, lengths=lengths, folder=folder).size == wanted
        assert bytes_per_sample(columns, tokens=3.0) * 3 == wanted  # three tokens on average


@pytest.mark.parametrize("tokens", [False, True], ids=["samples", "tokens"])
def test_nothing_is_got_for_no_samples(folder: Path | None, tokens: bool, generator: torch.Generator) -> None:
    store = filled(samples(generator, tokens), folder, generator)
    got = store.get(torch.tensor([], dtype=torch.long))
    assert got["maps"].shape == (0, 2, 3, 4)


def test_a_sample_without_tokens_is_all_padding(generator: torch.Generator) -> None:
    lengths = torch.tensor([2, 0, 3])
    rows = torch.randn(3, 3, 2, generator=generator)
    store = RowStore(columns_of({"a": rows}, frozenset({"a"})), 3, lengths=lengths)
    store.put(torch.arange(3), {"a": rows})
    got = store.get(torch.tensor([1, 0]))["a"]
    assert got.shape == (2, 2, 2) and not got[0].any() and torch.equal(got[1], rows[0, :2])


# --- files -------------------------------------------------------------------------------------------------------


def open_files(folder: Path) -> int:
    """How many files below `folder`, removed ones too, this process has open."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except OSError:
            continue
    return sum(link.startswith(str(folder)) for link in links)


def test_a_file_store_leaves_nothing_behind(tmp_path: Path, generator: torch.Generator) -> None:
    store = filled(samples(generator, True), tmp_path, generator)
    assert open_files(tmp_path) == len(store.columns) == 8
    assert not list(tmp_path.iterdir())  # also while it is in use: a killed process would leave nothing
    store.get(torch.arange(5))
    del store
    gc.collect()
    assert open_files(tmp_path) == 0 and not list(tmp_path.iterdir())


def test_short_reads_and_writes_go_on(
    tmp_path: Path, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operating system may do less than it is asked for."""
    write, read = os.pwrite, os.preadv
    calls = {"write": 0, "read": 0}

    def little(handle: int, content: memoryview, place: int) -> int:
        calls["write"] += 1
        return write(handle, content[:13], place)

    def less(handle: int, buffers: list[Any], place: int) -> int:
        calls["read"] += 1
        return read(handle, [buffers[0][:11]], place)

    monkeypatch.setattr(os, "pwrite", little)
    monkeypatch.setattr(os, "preadv", less)
    rows = torch.randn(9, 8, generator=generator)
    table = FileRows(9, 8, torch.float32, tmp_path)
    order = torch.tensor([3, 4, 5, 0, 8, 7, 6, 1, 2])
    table.put(order, rows)
    assert torch.equal(table.take(order.flip(0)), rows.flip(0))
    assert calls["write"] > 9 * 32 / 13 and calls["read"] > 9 * 32 / 11


def test_no_room_is_an_error_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [Column(name, (1000,), torch.float32, torch.float32) for name in "ab"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        RowStore(columns, 25, folder=tmp_path)
        with pytest.raises(OSError) as caught:
            RowStore(columns, 26, folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    gc.collect()
    assert open_files(tmp_path) == 0 and not list(tmp_path.iterdir())

    allocate, left = os.posix_fallocate, [1]

    def full(handle: int, start: int, size: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(handle, start, size)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        RowStore(columns, 26, folder=tmp_path)
    gc.collect()
    assert left == [-1] and open_files(tmp_path) == 0 and not list(tmp_path.iterdir())


def test_all_room_is_taken_at_once(tmp_path: Path) -> None:
    table = FileRows(1000, 256, torch.float32, tmp_path)
    assert os.fstat(table._file).st_blocks * 512 >= 1000 * 1024


def memory() -> int:
    """Bytes that this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("place", PLACES)
def test_memory_does_not_grow_with_the_file(place: str, tmp_path: Path, generator: torch.Generator) -> None:
    count, width = 2000, 25_600  # 200 MB
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier tests freed would be taken again without growing
    before, largest = memory(), 0
    column = Column("a", (width,), torch.float32, torch.float32)
    store = RowStore([column], count, folder=tmp_path if place == "file" else None)
    rows = torch.randn(20, width, generator=generator)
    for start in range(0, count, 20):
        store.put(torch.arange(start, start + 20), {"a": rows + start})
        largest = max(largest, memory())
    for indices in torch.randperm(count, generator=generator).split(20)[::5]:
        got = store.get(indices)["a"]
        assert torch.equal(got, rows[indices % 20] + (indices - indices % 20)[:, None])
        largest = max(largest, memory())
    assert store.size == count * width * 4
    if place == "file":
        assert largest - before < 40e6
    else:  # the same test sees rows in memory
        assert largest - before > 180e6
