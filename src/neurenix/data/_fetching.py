"""Reading the samples of one batch, in a worker process or in the main one."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import get_worker_info

from ..errors import NeurenixError, UnreadableSampleError
from . import collation
from ._batch import Batch, Skipped
from ._dataset import gathered, innermost, is_in_memory, sample_name
from ._randomness import drew_since, own_random_state, seed_everything
from .preparation import pair
from .sampling import mix, sample_seed

Key = tuple[int, int]  # (epoch, index): all that a worker needs to know
IDLE = -1  # in place of the index of a sample, or of the number of a process that has not begun
_LONGEST_REASON = 500  # characters; a decoder may quote the file


@final
@dataclass(frozen=True)
class Failure:
    """An exception on its way out of a worker: as text, because not every exception survives pickling."""

    kind: type[NeurenixError]
    message: str
    details: str

    def error(self) -> NeurenixError:
        """The exception to raise, with the worker's traceback as a note."""
        error = self.kind.__new__(self.kind)  # not through __init__, whose arguments are gone
        error.args = (self.message,)
        error.add_note(self.details)
        return error


@final
class KeyedDataset(TorchDataset[Any]):
    """Gives the batch for a list of keys; a sample's randomness depends on its key and the seed alone.

    deadly: why samples that cost earlier workers are not read, by their places.
    """

    def __init__(
        self, dataset: Any, collate: collation.Collate, seed: int, workers: int, deadly: Mapping[int, str]
    ) -> None:
        self.dataset, self.collate, self.seed, self.deadly = dataset, collate, seed, dict(deadly)
        self.skips = innermost(dataset, "on_bad", "raise") == "skip"
        self.random = not is_in_memory(dataset)
        self.gathers = not self.random and not deadly and collate is collation.collate
        # what each worker is reading, (process id, index), so that the sample that kills one can be named
        self.reading = torch.full((workers, 2), IDLE, dtype=torch.int64)
        if workers:
            self.reading.share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: list[Key]) -> Batch | Failure:
        """The batch of these keys; torch calls this once per batch."""
        with own_random_state() if self.random else contextlib.nullcontext():
            try:
                return self._batch(keys)
            except Exception as error:  # whatever a dataset raises has to reach the main process with a name
                return _failure(error)
            finally:
                self._now_at(IDLE)

    def _batch(self, keys: list[Key]) -> Batch:
        return self._at_once(keys) or self._one_by_one(keys)

    def _at_once(self, keys: list[Key]) -> Batch | None:
        """None where samples have to be read for themselves, be it to name the one that cannot be read."""
        if not self.gathers:
            return None
        indices = torch.tensor([index for _, index in keys], dtype=torch.int64)
        try:
            found = gathered(self.dataset, indices)
        except Exception:
            return None
        return None if found is None else Batch(*found, indices)

    def _one_by_one(self, keys: list[Key]) -> Batch:
        samples, kept, skipped, drew = [], [], [], False
        for epoch, index in keys:
            try:
                sample, drawn = self._read(epoch, index)
                samples.append(sample)
                kept.append(index)
                drew |= drawn
            except UnreadableSampleError as error:
                if not self.skips:
                    raise
                skipped.append(Skipped(index, sample_name(self.dataset, index), str(error)[:_LONGEST_REASON]))
            except NeurenixError:
                raise
            except Exception as error:  # not skipped: more likely a mistake in the code than in one file
                raise UnreadableSampleError(self._failed(index, error)) from error
        indices = torch.tensor(kept, dtype=torch.int64)
        seed = mix(sample_seed(self.seed, *keys[0]))  # a batch may be made at random too
        if self.random:
            seed_everything(seed)
        inputs, targets = self.collate(samples) if samples else (torch.empty(0), None)
        drew |= self.random and drew_since(seed)
        return Batch(inputs, targets, indices, tuple(skipped), drew=drew)

    def _read(self, epoch: int, index: int) -> tuple[tuple[Any, Any], bool]:
        """A sample, and whether reading it drew random numbers."""
        if index in self.deadly:
            raise UnreadableSampleError(self.deadly[index])
        self._now_at(index)
        if not self.random:
            return pair(self.dataset[index]), False
        seed = sample_seed(self.seed, epoch, index)
        seed_everything(seed)
        return pair(self.dataset[index]), drew_since(seed)

    def _now_at(self, index: int) -> None:
        info = get_worker_info()
        if info is not None:
            self.reading[info.id] = torch.tensor([os.getpid(), index])

    def _failed(self, index: int, error: Exception) -> str:
        name = sample_name(self.dataset, index)
        return f"reading sample {index} ({name}) failed with {type(error).__name__}: {error}"


def as_is(batch: Any) -> Any:
    """Torch's collate step, which has nothing left to do."""
    return batch


def _failure(error: Exception) -> Failure:
    kind = type(error) if isinstance(error, NeurenixError) else UnreadableSampleError
    message = (
        str(error)
        if isinstance(error, NeurenixError)
        else f"making a batch failed with {type(error).__name__}: {error}"
    )
    return Failure(kind, message, "".join(traceback.format_exception(error)))
