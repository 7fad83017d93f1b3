"""Batches of a dataset: the same for any number of workers, resumable at any batch, bad samples counted."""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Sampler
from torch.utils.data._utils import signal_handling

from ..devices import cpu_cores
from ..errors import (
    ConfigurationError,
    EmptyDatasetError,
    SkippedSamplesWarning,
    TooManyBadSamplesError,
    UnreadableSampleError,
)
from ._batch import Batch, Skipped
from ._dataset import innermost, is_in_memory, sample_name
from ._fetching import Failure, Key, KeyedDataset, as_is
from .collation import Collate, collate
from .conversion import as_dataset
from .sampling import epoch_order, length_batches, plain_batches, share_batches

_LOOK = 1.0  # seconds between looks at whether the workers are alive


@final
class DataLoader:
    """Batches of `dataset` (anything that as_dataset reads): `for inputs, targets in loader`.

    Every pass is the next epoch; `loader.batches(epoch)` gives any epoch. Order and augmentation depend on
    (seed, epoch, index) alone. Samples of known length (tokenised texts) are batched with others of similar
    length when shuffled.
    num_workers: processes that read ahead; no more than batches or cores, and none for data in memory.
    collate: samples [(input, target), …] -> (inputs, targets); by default the dataset's own, else stacking.
    bad_limit: share of the dataset that may be unreadable under on_bad="skip": at least one sample, unless it is 0.
    lengths: of every sample; batches samples of similar length, unshuffled ones longest first.
    timeout: seconds after which a batch that a worker does not deliver is an error and not a wait forever.
    skipped: the samples found unreadable so far, each once.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 32,
        shuffle: bool = False,
        num_workers: int = 0,
        seed: int = 0,
        collate: Collate | None = None,
        drop_last: bool = False,
        bad_limit: float = 0.01,
        lengths: Sequence[int] | np.ndarray | None = None,
        timeout: float = 60.0,
    ) -> None:
        self.dataset = as_dataset(dataset)
        _check_arguments(len(self.dataset), batch_size, num_workers, bad_limit)
        self.batch_size, self.shuffle, self.num_workers = batch_size, shuffle, num_workers
        self.seed, self.collate, self.drop_last = seed, collate, drop_last
        self.bad_limit, self.timeout = bad_limit, timeout
        self.skipped: list[Skipped] = []
        self._lengths = _known_lengths(self.dataset, lengths, shuffle)
        self._epoch = 0
        self._stream: _Stream | None = None

    def __len__(self) -> int:
        count, size = len(self.dataset), self.batch_size
        return count // size if self.drop_last else -(-count // size)

    def __iter__(self) -> Iterator[Batch]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        return self.batches(epoch)

    def batches(self, epoch: int, start: int = 0, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """The batches of one epoch, of which the first `start` are passed over without reading them.

        With several processes each reads every world_size-th sample of batches of batch_size * world_size;
        all get the same number of batches. A batch whose samples are all unreadable is left out.
        """
        plan = self.plan(epoch, rank, world_size)[start:]
        keys = [[(epoch, index) for index in batch.tolist()] for batch in plan]
        passed_over = 0
        for place, batch in enumerate(self._read(keys), start + 1):
            passed_over += len(batch.skipped)
            self._account(batch.skipped)
            if len(batch):
                yield replace(batch, place=place)
        if passed_over:
            warnings.warn(self._skipped_message(passed_over), SkippedSamplesWarning, stacklevel=2)

    def plan(self, epoch: int, rank: int = 0, world_size: int = 1) -> list[Tensor]:
        """The places in the dataset that each batch of an epoch holds, before any sample is read."""
        if not 0 <= rank < world_size:
            raise ConfigurationError(f"rank={rank} of world_size={world_size}; rank has to be in 0..{world_size - 1}.")
        size = self.batch_size * world_size
        order = epoch_order(len(self.dataset), self.seed, epoch, self.shuffle)
        if self._lengths is None:
            batches = plain_batches(order, size)
        else:
            batches = length_batches(order, self._lengths, size, self.seed, epoch, shuffle=self.shuffle)
        return share_batches(batches, rank, world_size, drop_last=self.drop_last, size=size)

    def _read(self, keys: list[list[Key]]) -> Iterator[Batch]:
        stream = self._stream
        if stream is None or stream.lost:
            stream = self._stream = _Stream(self)
        elif stream.busy:  # a second pass while one is under way gets workers of its own
            stream = _Stream(self)
        yield from stream.read(keys)

    def _account(self, skipped: Sequence[Skipped]) -> None:
        known = {bad.index for bad in self.skipped}
        self.skipped += [bad for bad in skipped if bad.index not in known]
        allowed = max(1, int(self.bad_limit * len(self.dataset))) if self.bad_limit else 0
        if len(self.skipped) > allowed:
            raise TooManyBadSamplesError(
                f"{len(self.skipped)} unreadable samples; {allowed} of {len(self.dataset)} are allowed "
                f"(bad_limit={self.bad_limit}): {_listed(self.skipped)}. Repair or remove them, or raise "
                "bad_limit."
            )

    def _skipped_message(self, count: int) -> str:
        return (
            f"{count} samples could not be read and were left out of this pass: {_listed(self.skipped)}. "
            "loader.skipped lists them all."
        )


def padding_share(loader: DataLoader, epoch: int = 0) -> float:
    """Share of an epoch's tokens, in [0, 1), that is padding when each batch is padded to its own longest.

    Needs a dataset that knows its samples' lengths, or the loader's own lengths.
    """
    known = loader._lengths if loader._lengths is not None else innermost(loader.dataset, "lengths")
    if known is None:
        raise ConfigurationError("padding_share needs lengths: a tokenised dataset, or DataLoader(lengths=…).")
    lengths = torch.as_tensor(np.asarray(known))
    per_batch = [lengths[batch] for batch in loader.plan(epoch)]
    return 1 - sum(int(x.sum()) for x in per_batch) / sum(int(x.max()) * len(x) for x in per_batch)


@final
class _Stream:
    """A torch DataLoader, kept with its workers from epoch to epoch, giving the batches it is asked for."""

    def __init__(self, loader: DataLoader) -> None:
        self.busy = self.lost = False
        self._timeout = loader.timeout
        workers = 0 if is_in_memory(loader.dataset) else min(loader.num_workers, len(loader), cpu_cores())
        own = loader.collate or innermost(loader.dataset, "collate") or collate
        self._data = KeyedDataset(loader.dataset, own, loader.seed, workers)
        self._plan = _Plan()
        self._torch: TorchDataLoader[Any] = TorchDataLoader(
            self._data,
            batch_sampler=self._plan,
            num_workers=workers,
            collate_fn=as_is,
            timeout=min(_LOOK, loader.timeout) if workers else 0,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # for torch's own seed of each pass: not the user's generator
        )

    def read(self, keys: list[list[Key]]) -> Iterator[Batch]:
        """One batch for each list of keys, in order."""
        if not keys:
            return
        self.busy = True
        try:
            self._plan.keys = keys
            for answer in self._guarded(iter(self._torch)):
                if isinstance(answer, Failure):
                    raise answer.error()
                yield answer
        finally:
            self.busy = False

    def _guarded(self, answers: Iterator[Any]) -> Iterator[Any]:
        deaths_are_found_here(answers)
        while True:
            try:
                answer = self._next(answers)
            except StopIteration:
                return
            yield answer

    def _next(self, answers: Iterator[Any]) -> Any:
        """The next batch; looks every second whether a worker died, and gives up after the timeout."""
        asked = time.monotonic()
        while True:
            tried = time.monotonic()
            try:
                return next(answers)
            except (RuntimeError, OSError) as error:  # datasets' own errors come as Failure
                waited = time.monotonic() - asked
                lost = self._reading(alive=False)
                only_slow = not lost and time.monotonic() - tried > _LOOK / 2 and waited < self._timeout
                if not only_slow:
                    self.lost = True
                    raise UnreadableSampleError(self._lost_worker(lost, waited, error)) from error

    def _reading(self, *, alive: bool) -> list[str]:
        """Names of the samples that workers, those alive or those dead, began to read last."""
        living = {process.pid for process in multiprocessing.active_children()}
        last = [index for pid, index in self._data.reading.tolist() if pid >= 0 and (pid in living) == alive]
        return [sample_name(self._data.dataset, index) for index in last]

    def _lost_worker(self, lost: list[str], waited: float, error: Exception) -> str:
        what = f"delivered nothing for {self._timeout:g} s" if waited >= self._timeout else "died"
        names = " or ".join(lost or self._reading(alive=True)) or "its first sample"
        return (
            f"a data worker {what} while reading {names} ({error}). Read the sample with num_workers=0 to see why. Too "
            "little memory kills workers too: use fewer of them or smaller batches. A slow disk may need a longer "
            "timeout=…"
        )


def deaths_are_found_here(answers: Any) -> None:
    """Take torch's signal handler off these workers.

    It raises wherever the program happens to be when a worker dies, in the middle of a training step or of an
    unrelated library, and cannot say which sample it was. The stream looks for deaths itself when it wants a batch.
    """
    if getattr(answers, "_worker_pids_set", False):
        signal_handling._remove_worker_pids(id(answers))  # type: ignore[attr-defined]
        answers._worker_pids_set = False


@final
class _Plan(Sampler[list[Key]]):
    """The batches that torch's loader shall deliver in its next pass."""

    def __init__(self) -> None:
        self.keys: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


def _known_lengths(dataset: Any, lengths: Any, shuffle: bool) -> Tensor | None:
    if lengths is None and shuffle:
        lengths = innermost(dataset, "lengths")
    if lengths is None:
        return None
    known = torch.as_tensor(np.asarray(lengths), dtype=torch.int64)
    if known.shape != (len(dataset),):
        raise ConfigurationError(
            f"lengths has shape {tuple(known.shape)}; one length for each of {len(dataset)} samples."
        )
    return known


def _check_arguments(count: int, batch_size: int, num_workers: int, bad_limit: float) -> None:
    if count == 0:
        raise EmptyDatasetError("the dataset has no samples; at least one is needed.")
    if batch_size < 1:
        raise ConfigurationError(f"batch_size={batch_size}; it is a count of samples, at least 1.")
    if num_workers < 0:
        raise ConfigurationError(f"num_workers={num_workers}; it is a count of processes, 0 reads in this one.")
    if not 0 <= bad_limit <= 1:
        raise ConfigurationError(f"bad_limit={bad_limit}; it is a share of the dataset, from 0 to 1.")


def _listed(skipped: Iterable[Skipped], shown: int = 3) -> str:
    names = [f"{bad.name} ({bad.reason})" if bad.name not in bad.reason else bad.reason for bad in skipped]
    return "; ".join(names[:shown]) + (f"; and {len(names) - shown} more" if len(names) > shown else "")
