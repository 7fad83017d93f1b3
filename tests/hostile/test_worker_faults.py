"""A worker that raises, is killed, hangs or runs out of memory is named by its sample; none is left over."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from neurenix.data import DataLoader, _stream
from neurenix.errors import SkippedSamplesWarning, TooManyBadSamplesError, UnreadableSampleError, WorkerLostError

COUNT = 60
TIMEOUT = 2.0  # seconds that a worker may spend on a sample, or take to start on a busy machine
PLACES = random.Random(17).sample(range(COUNT), 20 if os.environ.get("NEURENIX_PROVE") else 2)


def raise_error():
    raise KeyError("a mistake in the dataset")


def be_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def hang():
    time.sleep(3600)


def die_for_memory():
    os._exit(137)


FAULTS = {"exception": raise_error, "killed": be_killed, "hang": hang, "memory": die_for_memory}
LOSSES = ["killed", "hang", "memory"]


class Faulty:
    """Every sample is its own target; reading the one at `place` fails `times` times."""

    def __init__(self, place, fault, counter, times=10**9, on_bad="raise"):
        self.place, self.fault, self.counter, self.times, self.on_bad = place, FAULTS[fault], counter, times, on_bad

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        if index == self.place and self.counter.stat().st_size < self.times:
            with self.counter.open("ab") as stream:
                stream.write(b".")
            self.fault()
        return torch.tensor([index, torch.rand(()).item()]), index

    def sample_name(self, index):
        return f"photo-{index}.jpg"


@pytest.fixture
def counter(tmp_path):
    path = tmp_path / "faults so far"
    path.touch()
    return path


def children():
    """Process id and state of every child of this process."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == os.getpid():
            found[int(status.parent.name)] = state
    return found


def zombies(before):
    """Children that have ended, that nobody has waited for, and that were not there before.

    Loaders of other tests may be collected meanwhile, in any thread, and their workers be about to be waited for.
    """
    return {child for child, state in children().items() if state == "Z"} - before.keys()


def loader_of(dataset, **settings):
    return DataLoader(dataset, batch_size=4, shuffle=True, seed=3, num_workers=2, timeout=TIMEOUT, **settings)


def read(batches):
    rows = [row for batch in batches for row in torch.column_stack([batch.inputs, batch.targets]).tolist()]
    assert all(row[0] == row[-1] for row in rows), "a label went to another sample"
    return rows


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", PLACES)
def test_a_fault_names_its_sample_and_leaves_nothing_behind(fault, place, counter):
    before = children()
    dataset = Faulty(place, fault, counter, times=1)
    loader = loader_of(dataset)
    started = time.monotonic()
    with pytest.raises(UnreadableSampleError, match=rf"photo-{place}\.jpg") as caught:
        list(loader.batches(0))
    assert time.monotonic() - started < 15 * TIMEOUT
    assert isinstance(caught.value, WorkerLostError) == (fault in LOSSES)
    assert not zombies(before)
    if fault in LOSSES:
        assert children().keys() <= before.keys()
    assert len(read(loader.batches(0))) == COUNT  # the fault is gone, and the same loader reads everything


def test_workers_are_ended_where_one_dies_while_they_are_started(counter, monkeypatch):
    """Torch's handler may raise anywhere; here it does when the first samples are asked for."""
    before = children()

    def raises(self, loader, first_iter=False):
        raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly with exit code 137.")

    loader = loader_of(Faulty(3, "exception", counter, times=0))
    with monkeypatch.context() as patched:
        patched.setattr(_stream._MultiProcessingDataLoaderIter, "_reset", raises)
        with pytest.raises(WorkerLostError, match="died"):
            list(loader.batches(0))
    assert children().keys() <= before.keys()
    assert len(read(loader.batches(0))) == COUNT


@pytest.mark.parametrize("fault", LOSSES)
def test_a_sample_that_always_costs_its_worker_is_skipped_once_and_for_all(fault, counter):
    before, place = children(), PLACES[0]
    loader = loader_of(Faulty(place, fault, counter, on_bad="skip"), bad_limit=0.02)
    for epoch in range(3):
        with pytest.warns(SkippedSamplesWarning, match=rf"photo-{place}\.jpg cannot be read: a data worker .* twice"):
            assert {row[0] for row in read(loader.batches(epoch))} == set(range(COUNT)) - {place}
    assert [(bad.index, bad.name) for bad in loader.skipped] == [(place, f"photo-{place}.jpg")]
    assert counter.stat().st_size == 2
    assert not zombies(before)


@pytest.mark.parametrize("fault", LOSSES)
def test_a_worker_that_is_lost_once_costs_no_sample(fault, counter):
    loader = loader_of(Faulty(PLACES[-1], fault, counter, times=1, on_bad="skip"))
    undisturbed = loader_of(Faulty(-1, fault, counter))
    assert read(loader.batches(2)) == read(undisturbed.batches(2))
    assert loader.skipped == []


def test_samples_that_cost_workers_count_towards_the_limit(counter):
    with pytest.raises(TooManyBadSamplesError, match=r"0 of 60 are allowed.*died at it, twice"):
        list(loader_of(Faulty(PLACES[0], "killed", counter, on_bad="skip"), bad_limit=0))


def test_the_time_is_that_of_a_sample_and_not_of_a_batch():
    class Slow(Faulty):
        def __getitem__(self, index):
            time.sleep(0.4 * TIMEOUT if index < 4 else 0)  # the second worker has long done its batch
            return torch.tensor([index]), index

        def __len__(self):
            return 8

    slow = Slow(-1, "hang", Path(os.devnull))
    assert [len(batch) for batch in DataLoader(slow, batch_size=4, num_workers=2, timeout=TIMEOUT)] == [4, 4]


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_lost_while_it_waits_is_replaced_under_skip(sent, counter):
    loader = loader_of(Faulty(-1, "hang", counter, on_bad="skip"))
    batches = loader.batches(0)
    seen = [next(batches)]
    time.sleep(0.5)  # the workers have read ahead and wait now
    for child in {row[0] for row in loader._stream._data.reading.tolist()} & children().keys():
        os.kill(child, sent)
    assert len(read([*seen, *batches])) == COUNT
    assert loader.skipped == []


class Interrupted:
    """A killed worker, while torch's signal handler raises for another loader's."""

    def __init__(self):
        self.exitcode, self.joins = None, 0
        self.process = subprocess.Popen(["sleep", "60"])
        self.process.kill()
        self.pid = self.process.pid

    def join(self):
        self.joins += 1
        if self.joins == 1:
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")
        self.exitcode = self.process.wait()


def test_a_worker_is_reaped_though_torch_speaks_of_another():
    worker = Interrupted()
    _stream._reap(worker)
    assert worker.joins == 2 and worker.exitcode == -9


def test_a_worker_that_something_else_reaped_is_not_waited_for():
    worker = Interrupted()
    worker.process.wait()
    _stream._reap(worker)
    assert worker.joins == 0 and worker.exitcode is None


def test_a_worker_that_dies_as_it_starts_is_a_lost_worker(counter, monkeypatch):
    def dies(answers):
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    monkeypatch.setattr(_stream, "deaths_are_found_here", dies)
    with pytest.raises(WorkerLostError, match="died while reading"):
        list(loader_of(Faulty(58, "killed", counter, times=1)).batches(0))
