"""A million rows that do not fit into memory, as frozen layers give them: kept in a file, and read in random order.

    python benchmarks/keep_rows.py

1,000,000 vectors of 1,280 numbers in bfloat16, 2.6 GB, are written once in random order, batch by batch, as the first
epoch gives them, and read once in another random order, as the second asks for them. neurenix keeps them in a
RowStore; beside it numpy.memmap does the same. `seconds` are those of both; `grown_mib` is by how much the process's
resident memory was larger at the end than before the store was made, which for neurenix has to stay below 200.

What was read was what had been written, or there is no figure. On a machine with more memory than the rows take, both
read from the system's cache of files and not from the disk. NEURENIX_BENCH_ROWS: how many rows.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import torch
from _race import race
from torch import Tensor

from neurenix.training.prefix.store import Column, RowStore

COUNT = int(os.environ.get("NEURENIX_BENCH_ROWS", 1_000_000))
WIDTH, BATCH, LARGEST = 1280, 256, 200
NUMBERS = torch.randint(-(2**15), 2**15, (WIDTH,), generator=torch.Generator().manual_seed(0), dtype=torch.int16)
Put = Callable[[Tensor, Tensor], None]
Take = Callable[[Tensor], Tensor]


def ours(seed: int, folder: Path) -> dict[str, float]:
    before = resident()
    store = RowStore([Column("x", (WIDTH,), torch.bfloat16, torch.bfloat16)], COUNT, folder=folder)
    told = measured(seed, before, lambda places, rows: store.put(places, {"x": rows}), lambda p: store.get(p)["x"])
    if told["grown_mib"] >= LARGEST:
        sys.exit(f"resident memory grew by {told['grown_mib']:.0f} MiB, and {LARGEST} are allowed")
    return told


def memmap(seed: int, folder: Path) -> dict[str, float]:
    before = resident()
    kept = numpy.memmap(folder / "rows", dtype=numpy.int16, mode="w+", shape=(COUNT, WIDTH))

    def put(places: Tensor, rows: Tensor) -> None:
        kept[places.numpy()] = rows.view(torch.int16).numpy()

    return measured(seed, before, put, lambda places: torch.from_numpy(kept[places.numpy()]).view(torch.bfloat16))


def measured(seed: int, before: float, put: Put, take: Take) -> dict[str, float]:
    """Write all rows and read them all; neither their making nor their checking is timed."""
    writing = reading = 0.0
    for places in batches(seed):
        rows = rows_of(places)
        started = time.perf_counter()
        put(places, rows)
        writing += time.perf_counter() - started
    for number, places in enumerate(batches(seed + 1)):
        started = time.perf_counter()
        rows = take(places)
        reading += time.perf_counter() - started
        if number % 16 == 0 and not torch.equal(rows.view(torch.int16), rows_of(places).view(torch.int16)):
            sys.exit("what was read is not what was written")
    return {
        "seconds": writing + reading,
        "rows_written_per_second": COUNT / writing,
        "rows_read_per_second": COUNT / reading,
        "grown_mib": resident() - before,
    }


def batches(seed: int) -> Iterator[Tensor]:
    """The places of all rows in random order."""
    return iter(torch.randperm(COUNT, generator=torch.Generator().manual_seed(seed)).split(BATCH))


def rows_of(places: Tensor) -> Tensor:
    """Rows (n, WIDTH) that tell their places."""
    halves = torch.stack([places % 2**15, places // 2**15], 1).to(torch.int16)
    return (NUMBERS ^ halves.repeat(1, WIDTH // 2)).view(torch.bfloat16)


def resident() -> float:
    """MiB of this process that are in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def in_folder(job: Callable[[int, Path], dict[str, float]], seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        return job(seed, Path(folder))


def main() -> None:
    race(
        "keep-rows",
        f"{COUNT:,} rows of {WIDTH:,} numbers in bfloat16, written and read in random batches of {BATCH}",
        {
            "neurenix RowStore": lambda seed: in_folder(ours, seed),
            "numpy.memmap": lambda seed: in_folder(memmap, seed),
        },
        ours="neurenix RowStore",
        rounds=3,
    )


if __name__ == "__main__":
    main()
