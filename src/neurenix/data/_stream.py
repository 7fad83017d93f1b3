"""Torch's loader with its worker processes, watched: the sample that kills or stops a worker is named."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, final

import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Sampler
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from ..devices import free_memory
from ..errors import WorkerLostError
from ._batch import Batch
from ._dataset import sample_name
from ._fetching import IDLE, Failure, Key, KeyedDataset, as_is
from .collation import Collate

_LOOK = 0.25  # seconds between looks at whether the workers are alive
_AHEAD, _DEEPEST = 512 * 2**20, 16  # bytes of batches that wait, and batches of each worker
_NICE = 5  # steps by which workers come after what computes
_STARTING = 30.0  # seconds that a worker may take until it reads, at least: processors may be busy
_DYING = 2.0  # seconds from a worker's broken connection to its end


@final
class Stream:
    """A torch DataLoader, kept with its workers from epoch to epoch, giving the batches it is asked for.

    timeout: seconds that a worker may spend on one sample. deadly: why samples that cost earlier workers are not
    to be read, by their places. busy: a pass is under way. lost: a worker is gone, and with it the stream.
    """

    def __init__(
        self, dataset: Any, collate: Collate, *, seed: int, workers: int, timeout: float, deadly: Mapping[int, str]
    ) -> None:
        self.busy = self.lost = False
        self._timeout, self._look = timeout, min(_LOOK, timeout)
        self._data = KeyedDataset(dataset, collate, seed, workers, deadly)
        self._plan = _Plan()
        self._torch = _Loader(
            self._data,
            batch_sampler=self._plan,
            num_workers=workers,
            collate_fn=as_is,
            worker_init_fn=_set_up,
            timeout=self._look if workers else 0,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # for torch's own seed of each pass: not the user's generator
        )
        self._workers_end = weakref.finalize(self, _end_workers, self._torch, os.getpid())
        self._workers_end.atexit = False  # multiprocessing ends what is left

    @property
    def workers(self) -> int:
        """Number of worker processes; 0 reads in this one."""
        return self._torch.num_workers

    def read(self, keys: list[list[Key]]) -> Iterator[Batch]:
        """One batch for each list of keys, in order; raises WorkerLostError when a worker dies or hangs."""
        if not keys:
            return
        self.busy = True
        try:
            self._plan.keys = keys
            answers = self._begun()
            for place, answer in enumerate(self._guarded(answers)):
                if isinstance(answer, Failure):
                    self.end()
                    raise answer.error()
                if place == 0 and self.workers:
                    _let_go_ahead(answers, answer)
                yield answer
        finally:
            self.busy = False

    def end(self) -> None:
        """Kill the workers and reap them."""
        self.lost = True
        self._workers_end()

    def _begun(self) -> Iterator[Any]:
        try:
            answers = iter(self._torch)
            deaths_are_found_here(answers)
        except RuntimeError as error:  # by torch's handler, of a worker that died as soon as it was started
            self.end()
            raise self._lost("died", self._data.reading[:, 1].tolist(), error) from error
        return answers

    def _guarded(self, answers: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                answer = self._next(answers)
            except StopIteration:
                return
            yield answer

    def _next(self, answers: Iterator[Any]) -> Any:
        """The next batch; looks again and again whether a worker died or has been at one sample for too long."""
        asked, watch = time.monotonic(), _Watch(self._data.reading)
        while True:
            tried = time.monotonic()
            try:
                return next(answers)
            except (RuntimeError, OSError, EOFError) as error:  # datasets' own errors come as Failure
                patient = time.monotonic() - tried > self._look / 2
                dead, hung = self._dead(answers, patient), watch.unmoved_for(self._timeout)
                waiting = watch.is_reading() or time.monotonic() - asked < watch.patience(self._timeout)
                if patient and waiting and not dead and not hung:
                    continue
                what = f"delivered nothing for {self._timeout:g} s" if patient and not dead else "died"
                self.end()
                raise self._lost(what, dead or hung, error) from error

    def _dead(self, answers: Any, patient: bool) -> list[int]:
        """Places of the samples that dead workers were reading; -1 for one that read nothing.

        patient: torch waited in vain. If it did not, a worker broke off, and may be dying just now.
        """
        workers = getattr(answers, "_workers", ())
        end = time.monotonic() + (0 if patient else _DYING)
        while all(worker.is_alive() for worker in workers) and time.monotonic() < end:
            time.sleep(0.01)
        places = self._data.reading[:, 1].tolist()
        return [place for worker, place in zip(workers, places, strict=False) if not worker.is_alive()]

    def _lost(self, what: str, indices: list[int], error: Exception) -> WorkerLostError:
        suspects = [index for index in indices if index != IDLE]
        names = " or ".join(sample_name(self._data.dataset, index) for index in suspects) or "no sample"
        return WorkerLostError(
            f"a data worker {what} while reading {names} ({error}). Read the sample with num_workers=0 to see why. Too "
            "little memory kills workers too: use fewer of them or smaller batches. A slow disk may need a longer "
            "timeout=…",
            what,
            suspects,
        )


@final
class _Watch:
    """For how long each worker has been at the sample that it reads. reading: (workers, 2) process id, index."""

    def __init__(self, reading: torch.Tensor) -> None:
        self._reading = reading
        self._seen: list[list[int]] = reading.tolist()
        self._since = [time.monotonic()] * len(self._seen)

    def unmoved_for(self, seconds: float) -> list[int]:
        """Places of the samples that workers have been reading for `seconds` or longer."""
        now, seen = time.monotonic(), self._reading.tolist()
        self._since = [
            since if before == after else now
            for since, before, after in zip(self._since, self._seen, seen, strict=True)
        ]
        self._seen = seen
        return [
            index
            for (_, index), since in zip(seen, self._since, strict=True)
            if index != IDLE and now - since >= seconds
        ]

    def patience(self, seconds: float) -> float:
        """How long to wait for workers that read nothing: longer for those that have not begun to read."""
        begun = all(process != IDLE for process, _ in self._seen)
        return seconds if begun else max(seconds, _STARTING)

    def is_reading(self) -> bool:
        """Whether any worker was at a sample at the last look."""
        return any(index != IDLE for _, index in self._seen)


def deaths_are_found_here(answers: Any) -> None:
    """Take torch's signal handler off these workers.

    It raises wherever the program happens to be when a worker dies, in the middle of a training step or of an
    unrelated library, and cannot say which sample it was. The stream looks for deaths itself when it wants a batch.
    """
    _forget_pids(answers)


def _forget_pids(answers: Any) -> None:
    """Make torch forget these workers; it knows them by the id of `answers`, which another object may get later."""
    if getattr(answers, "_worker_pids_set", False):
        signal_handling._remove_worker_pids(id(answers))  # type: ignore[attr-defined]
        answers._worker_pids_set = False


def _let_go_ahead(answers: Any, batch: Batch) -> None:
    """Let workers read further ahead than torch's two batches each, as far as batches like this one leave memory.

    So that nobody waits for them after the main process has been busy with something else, such as the choice of a
    backend. Until the first batch is there nobody knows how much memory that takes.
    """
    room = min(_AHEAD, _shared_memory() / 8, free_memory(torch.device("cpu")) / 16)
    deep = min(int(room / max(1, batch.nbytes) / len(answers._workers)), _DEEPEST)
    if deep <= answers._prefetch_factor:
        return
    more, answers._prefetch_factor = (deep - answers._prefetch_factor) * len(answers._workers), deep
    for _ in range(more):
        answers._try_put_index()  # does nothing where no batch is left


def _shared_memory() -> float:
    """Free bytes where batches wait: containers often have little."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage("/dev/shm").free
    return 0.0


def _set_up(worker: int) -> None:
    """Before a worker reads: it gives way to this process, and shares by name.

    Where readers and the threads that compute take each other's cores, those threads wait for one another in every
    layer, and a step takes several times as long. Whoever computes waits for readers anyway when nothing is read.
    """
    if hasattr(os, "nice"):
        os.nice(_NICE)
    _share_by_name()


def _share_by_name() -> None:
    """Let a worker hand its tensors over as named memory.

    By file descriptor, torch's way on Linux, this process would have to ask the worker for each of them, and wait for
    ever for one that hangs in a decoder.
    """
    torch.multiprocessing.set_sharing_strategy("file_system")


def _end_workers(loader: TorchDataLoader[Any], owner: int) -> None:
    """Kill the workers and reap them, in the process that started them.

    Not by torch's own shutdown: it waits for a hung worker, does not reap it, takes a lock that a killed worker may
    have held, and waits 5 seconds for each worker when the garbage collector calls it.
    """
    answers: Any = loader._iterator
    if answers is None or not hasattr(answers, "_workers"):
        return
    answers._shutdown = True  # also in a forked worker, whose copy of the stream would tell the owner's workers to end
    if os.getpid() != owner:
        return
    _forget_pids(answers)
    for worker in answers._workers:
        worker.kill()
    for worker in answers._workers:
        _reap(worker)
    _drain(answers._worker_result_queue)
    for queue in (*answers._index_queues, answers._worker_result_queue):
        queue.cancel_join_thread()
        queue.close()


def _reap(worker: Any) -> None:
    """Wait for a killed worker. Torch's signal handler may raise meanwhile for another loader, once for each.

    Where something else in this process has reaped it already, its exit code is never known, and nothing is waited for.
    """
    while worker.exitcode is None:
        with contextlib.suppress(RuntimeError):
            try:
                os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                return
            worker.join()


def _drain(queue: Any) -> None:
    """Take out what dead workers left: its memory is freed when it is opened, or when this process ends."""
    queue._writer.close()  # so that a message which was cut off ends, and is not waited for
    with contextlib.suppress(RuntimeError, OSError, EOFError):
        while queue._reader.poll():
            queue.get()


@final
class _Loader(TorchDataLoader[Any]):
    """Torch's loader, which knows its workers from when they begin to start.

    They read as soon as they are started, and one that dies at once makes torch's signal handler raise before torch has
    let go of what started them: nobody could end the others.
    """

    def _get_iterator(self) -> Any:
        if self.num_workers == 0:
            return super()._get_iterator()
        self.check_worker_number_rationality()
        kind = _MultiProcessingDataLoaderIter
        self._iterator = kind.__new__(kind)
        self._iterator.__init__(self)  # type: ignore[misc]
        return self._iterator


@final
class _Plan(Sampler[list[Key]]):
    """The batches that torch's loader shall deliver in its next pass."""

    def __init__(self) -> None:
        self.keys: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)
