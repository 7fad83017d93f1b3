"""Batches of a dataset: the same for any number of workers, resumable at any batch, bad samples counted."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ..devices import cpu_cores
from ..errors import (
    ConfigurationError,
    EmptyDatasetError,
    SkippedSamplesWarning,
    TooManyBadSamplesError,
    WorkerLostError,
)
from ._batch import Batch, Skipped
from ._dataset import innermost, is_in_memory, left_out, sample_name
from ._fetching import IDLE, Key
from ._stream import Stream
from .collation import Collate, collate
from .conversion import as_dataset
from .sampling import epoch_order, grouped_batches, length_batches, plain_batches, share_batches

_CHANCES = 3  # workers that may be lost while they read nothing


@final
class DataLoader:
    """Batches of `dataset` (anything that as_dataset reads): `for inputs, targets in loader`.

    Every pass is the next epoch; `loader.batches(epoch)` gives any epoch. Order and augmentation depend on
    (seed, epoch, index) alone. Samples of known length (tokenised texts) are batched with others of similar
    length when shuffled.
    num_workers: processes that read ahead; no more than batches or cores, and none for data in memory.
    collate: samples [(input, target), …] -> (inputs, targets); by default the dataset's own, else stacking.
    on_bad: "raise" stops at an unreadable sample, "skip" leaves it out, counts and lists it. For data that become a
        dataset here; a dataset has its own.
    bad_limit: share of the dataset that may be unreadable under on_bad="skip": at least one sample, unless it is 0.
    lengths: of every sample; batches samples of similar length, unshuffled ones longest first and short ones in
        larger batches.
    views: augmented versions of each sample, which come in turn, one in each epoch; None for a new one each time.
    groups: sizes of the parts that the dataset consists of, one after the other; each batch has batch_size samples of
        every one of them, shuffled, see sampling.grouped_batches.
    timeout: seconds that a worker may spend on one sample. Only workers can be watched: with num_workers=0 a decoder
        that does not return holds up the program, and one that crashes ends it.
    skipped: the samples found unreadable so far, each once.

    Under on_bad="skip" a sample at which a worker dies or hangs is read once more, by new workers, and left out if
    it costs a second one; under "raise" the first is a WorkerLostError.
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
        on_bad: str | None = None,
        views: int | None = None,
        groups: Sequence[int] = (),
    ) -> None:
        self.dataset = as_dataset(dataset, on_bad)
        _check_arguments(len(self.dataset), batch_size, num_workers, bad_limit)
        if views is not None and views < 1:
            raise ConfigurationError(f"views={views}; it is a number of versions of each sample, at least 1, or None.")
        if groups and sum(groups) != len(self.dataset):
            raise ConfigurationError(
                f"groups={list(groups)} are parts of {len(self.dataset)} samples, but add up to {sum(groups)}."
            )
        if drop_last and not groups and len(self.dataset) < batch_size:
            raise ConfigurationError(
                f"drop_last=True leaves no batch: there are {len(self.dataset)} samples, and batch_size={batch_size}. "
                "Take a smaller batch_size, or leave drop_last out."
            )
        self.views, self.groups, self.lengths = views, tuple(groups), lengths
        self.batch_size, self.shuffle, self.num_workers = batch_size, shuffle, num_workers
        self.seed, self.collate, self.drop_last = seed, collate, drop_last
        self.bad_limit, self.timeout = bad_limit, timeout
        self.skipped: list[Skipped] = list(left_out(self.dataset))
        self._lengths = None if groups else _known_lengths(self.dataset, lengths, shuffle)
        self._epoch = 0
        self._stream: Stream | None = None
        self._losses: Counter[int] = Counter()  # workers lost at each sample
        self._deadly: dict[int, str] = {}  # why samples that cost two workers are not read again

    def __len__(self) -> int:
        if self.groups:
            return max(-(-group // self.batch_size) for group in self.groups)
        if self._lengths is not None and not self.shuffle:
            return len(self.plan(0))
        count, size = len(self.dataset), self.batch_size
        return count // size if self.drop_last else -(-count // size)

    def __iter__(self) -> Iterator[Batch]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        return self.batches(epoch)

    def batches(self, epoch: int, start: int = 0, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """The batches of one epoch, of which the first `start` are passed over without reading them.

        With several processes each reads every world_size-th sample of batches of batch_size * world_size;
        all get the same number of batches. A batch whose samples are all unreadable is left out; with several
        processes a stand-in keeps them in step.
        """
        plan = self.plan(epoch, rank, world_size)
        self._check_limit()
        passed_over = 0
        for place, batch in enumerate(self._read(_keys(plan[start:], self._seen_in(epoch))), start + 1):
            passed_over += len(batch.skipped)
            self.note(batch.skipped)
            if not len(batch) and world_size > 1:
                batch = replace(self._stand_in(plan, place, epoch), skipped=batch.skipped, stand_in=True)
            if len(batch):
                yield replace(batch, place=place)
        if passed_over:
            warnings.warn(self._skipped_message(passed_over), SkippedSamplesWarning, stacklevel=2)

    def first(self, epoch: int) -> Batch:
        """The first batch of an epoch, for a look at the data: nothing is read ahead."""
        found = self.of(self.plan(epoch)[0], epoch)
        return replace(found, place=1) if len(found) else next(self.batches(epoch))

    def of(self, indices: Tensor, epoch: int) -> Batch:
        """A batch of these samples as an epoch sees them, without those that cannot be read."""
        (batch,) = self._read(_keys([indices], self._seen_in(epoch)))
        self.note(batch.skipped)
        return batch

    def plan(self, epoch: int, rank: int = 0, world_size: int = 1) -> list[Tensor]:
        """The places in the dataset that each batch of an epoch holds, before any sample is read."""
        if not 0 <= rank < world_size:
            raise ConfigurationError(f"rank={rank} of world_size={world_size}; rank has to be in 0..{world_size - 1}.")
        size = self.batch_size * world_size
        if self.groups:
            batches = grouped_batches(self.groups, size, self.seed, epoch)
            return share_batches(batches, rank, world_size, drop_last=False, size=size)
        order = epoch_order(len(self.dataset), self.seed, epoch, self.shuffle)
        if self._lengths is None:
            batches = plain_batches(order, size)
        else:
            batches = length_batches(order, self._lengths, size, self.seed, epoch, shuffle=self.shuffle)
        return share_batches(batches, rank, world_size, drop_last=self.drop_last, size=size)

    def view(self, epoch: int) -> int:
        """Which of its `views` each sample is seen in; 0 where there are none."""
        return epoch % self.views if self.views else 0

    def _seen_in(self, epoch: int) -> int:
        """The epoch whose randomness the samples of `epoch` have."""
        return self.view(epoch) if self.views else epoch

    def _read(self, keys: list[list[Key]]) -> Iterator[Batch]:
        delivered = 0
        while True:
            try:
                for batch in self._free_stream().read(keys[delivered:]):
                    delivered += 1
                    yield batch
                return
            except WorkerLostError as lost:
                if not self._survives(lost):
                    raise

    def _free_stream(self) -> Stream:
        if self._stream is None or self._stream.lost:
            self._stream = self._new_stream()
        elif self._stream.busy:  # a second pass while one is under way gets workers of its own
            return self._new_stream()
        return self._stream

    def _new_stream(self) -> Stream:
        workers = 0 if is_in_memory(self.dataset) else min(self.num_workers, len(self), cpu_cores())
        own = self.collate or innermost(self.dataset, "collate") or collate
        return Stream(self.dataset, own, seed=self.seed, workers=workers, timeout=self.timeout, deadly=self._deadly)

    def _survives(self, lost: WorkerLostError) -> bool:
        """Note the samples at which a worker was lost; whether to read on with new workers.

        A worker may also be lost for a reason of its own, so the sample gets a second chance, and no more: what is
        skipped has to be the same in every epoch.
        """
        self._losses.update(lost.indices or (IDLE,))
        if innermost(self.dataset, "on_bad", "raise") == "raise" or self._losses[IDLE] > _CHANCES:
            return False
        for index in lost.indices:
            if self._losses[index] > 1:
                name = sample_name(self.dataset, index)
                self._deadly[index] = f"{name} cannot be read: a data worker {lost.what} at it, twice"
                self.note([Skipped(index, name, self._deadly[index])])
        return True

    def _stand_in(self, plan: list[Tensor], place: int, epoch: int) -> Batch:
        """The first readable sample after batch `place` in this process's plan, beginning anew at its end."""
        order = torch.cat([*plan[place:], *plan[:place]]).split(1)
        for batch in self._read(_keys(order, self._seen_in(epoch))):
            if len(batch):
                return batch
        return batch

    def note(self, skipped: Sequence[Skipped]) -> None:
        """Take samples that could not be read into `skipped`; raises TooManyBadSamplesError."""
        known = {(bad.index, bad.name) for bad in self.skipped}
        new = [bad for bad in skipped if (bad.index, bad.name) not in known]
        if new:
            self.skipped += new
            self._check_limit()

    def _check_limit(self) -> None:
        allowed = max(1, int(self.bad_limit * len(self.dataset))) if self.bad_limit else 0
        if len(self.skipped) > allowed:
            if self._stream is not None:
                self._stream.end()
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


def _keys(batches: Iterable[Tensor], epoch: int) -> list[list[Key]]:
    return [[(epoch, index) for index in batch.tolist()] for batch in batches]


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
