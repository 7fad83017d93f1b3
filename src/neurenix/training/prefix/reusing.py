"""Batches that have been through the frozen layers, each sample once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from ...backends import Work, counted, eager
from ...data import Batch, DataLoader, innermost
from ...data._batch import rows as rows_of
from ...data._randomness import own_random_state
from ...devices import autocast, free_memory, move, rounding, same_sample
from ...models import PretrainedModel
from ...nn import TaskHead
from ...storage import cache_folder
from ..processes import Processes
from .feeds import Features, ReuseOptions
from .frozen import TRIED, FrozenLayers, boundary_of
from .graph import NotSplittable, NotWorthIt
from .probes import Probes
from .rehearsal import check_same, close, put_back
from .split import FEATURES, Embedding, Split, constants_of, split
from .store import CPU, Boundary, RowStore, bytes_per_sample, columns_of
from .targets import TargetRows, bytes_of_targets
from .worth import BACKWARD, ENOUGH, Estimate

_SECONDS = 5.0  # saved at least, for models that have to be traced
_MEMORY_SHARE, _DISK_SHARE = 0.25, 0.25  # of what is free
_ALWAYS = 64 * 2**20  # bytes of targets that are kept in any case


@final
class ReusingFeed:
    """Batches that have been through the frozen layers, each sample once; then the rest of the model is called.

    The store is filled in the first epoch, in its batches. Where a later process goes on with the fit, it fills it
    again from that epoch's batches, so that every bit is what it was; what an earlier run kept on disk for the very
    same batches is taken from there. Where a model cannot be cut or nothing would be gained, this is an OrdinaryFeed
    that says so.

    first: the epoch in which the frozen layers became what they are. passes: how often the data will be read.
    training: steps are made with the batches, in the mode that the modules are in.
    moving: ids of buffers that training changes, so that nothing above them stays the same.
    check: raises for a batch whose targets cannot be used.
    features: gives what enters the head for all samples, in the same bits in any process. Where that is the boundary,
    and a few samples computed anew agree, the store is filled with it at once.
    """

    def __init__(
        self,
        model: PretrainedModel,
        loader: DataLoader,
        processes: Processes,
        *,
        options: ReuseOptions,
        precision: str,
        exact: bool,
        first: int,
        passes: int,
        training: bool,
        moving: frozenset[int],
        check: Callable[[Batch], None],
        features: Callable[[], Features] | None,
        say: Callable[[str], None],
    ) -> None:
        self.module: nn.Module = model
        self._model, self._loader, self._device = model, loader, processes.device
        self._options, self._precision, self._exact = options, precision, exact
        self._first, self._passes, self._training, self._say = first, passes, training, say
        self._moving, self._check = moving, check
        self._frozen: FrozenLayers | None = None  # while rows are missing
        self._store: RowStore | None = None
        self._beside: Callable[[Any], Boundary] = lambda inputs: {}
        self._wrong: str | None = None  # why the store is given up before the next epoch
        self._probes = Probes(loader)
        self._views = loader.views or 1
        self._features = features
        self._targets = TargetRows(0)
        self._decided = False
        self._traced: Any = None  # what a trace took for constant, when the model was cut
        self._complete: set[int] = set()  # views of which every row has been computed

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch; what is not stored yet is computed."""
        if not self._decided:
            with own_random_state():  # a forward that is looked at may draw
                self._decide()
        view = self._loader.view(epoch)
        if self._store is not None and view in self._complete and not self._wrong and self._probes.differ(epoch):
            self._wrong = "the data give other samples than in the pass before"
        self._give_up_what_is_wrong()
        filling = self._first + (view - self._first) % self._views
        rows = view * len(self._loader.dataset)
        if self._store is not None and epoch == filling and view not in self._complete:
            for batch in self._loader.batches(epoch):
                boundary = self._kept(batch, rows)
                if batch.place > start:
                    yield replace(batch, inputs=boundary)
            self._finish(filling, view)
            return
        if self._store is not None and view not in self._complete:
            self._fill(filling, view)
        if self._store is None:
            yield from self._loader.batches(epoch, start)
            return
        for place, indices in enumerate(self._loader.plan(epoch)[start:], start + 1):
            known = indices[self._store.written(indices + rows)]
            if len(known):
                yield Batch(self._store.get(known + rows), self._targets.get(known + rows), known, place=place)

    def whole(self, batch: Batch, epoch: int) -> Batch:
        """The samples of a batch of rows, read once more."""
        return batch if self._store is None else self._loader.of(batch.indices, epoch)

    def _fill(self, epoch: int, view: int) -> None:
        """Store the rows that an earlier process had, in its batches, so that every bit is the same."""
        for batch in self._loader.batches(epoch):
            self._kept(batch, view * len(self._loader.dataset))
            if self._wrong:
                break
        self._finish(epoch, view)
        self._give_up_what_is_wrong()

    def _finish(self, epoch: int, view: int) -> None:
        """Store the samples that the epoch's batches left out, since others will have them; then no row is missing.

        What the frozen layers were run with is given back once every view is complete.
        """
        samples = len(self._loader.dataset)
        if self._loader.drop_last and self._store is not None and not self._wrong:
            left_out = (~self._store.written(torch.arange(samples) + view * samples)).nonzero().flatten()
            for indices in left_out.split(self._loader.batch_size):
                batch = self._loader.of(indices, epoch)
                if len(batch):
                    self._kept(batch, view * samples)
        self._complete.add(view)
        if len(self._complete) == self._views and self._frozen is not None:
            self._frozen.finish()
            self._frozen = None

    def _give_up_what_is_wrong(self) -> None:
        """Go back to the whole model where the store cannot be used: between epochs, as a window may hold its rows."""
        if self._store is not None and self._traced != constants_of(self._model):
            self._wrong = "tensors, hooks or settings of the model's layers changed since they were split off"
        if self._wrong:
            self._store, self._frozen, self.module = None, None, self._model
            self._say(f"the frozen layers run in every pass from now on: {self._wrong}")
            self._wrong = None

    def _kept(self, batch: Batch, rows: int) -> Boundary:
        """Store a batch's rows and targets, unless they are there, and give its rows as they come out.

        rows: where those of its view begin. Where the store cannot be used the batch gets its rows as they are.
        """
        assert self._store is not None and self._frozen is not None
        places = batch.indices + rows
        new = ~self._store.written(places)
        if self._wrong or bool(new.any()):
            boundary = {**self._frozen(batch), **self._beside(batch.inputs)}
            self._wrong = self._wrong or self._put(batch, places, new, boundary)
            if self._wrong:
                return boundary
        return self._store.get(places)

    def _put(self, batch: Batch, places: Tensor, new: Tensor, boundary: Boundary) -> str | None:
        """Store what of a batch is new; why that cannot be done, or would be wrong.

        A row stays what it was first, so that a later process that fills the store gives every sample the same bits.
        """
        assert self._store is not None
        if not self._store.fits(boundary):
            return "what they give is not of one size for all samples"
        if not self._loader.views:  # of which each is random, and is kept as it came
            if batch.drew:
                return "reading some samples draws random numbers"
            self._probes.note(batch)
        targets = batch.targets
        if not bool(new.all()):
            places, boundary, targets = places[new], rows_of(boundary, new), rows_of(targets, new)
        try:
            self._store.put(places, boundary)
        except OSError as error:
            return f"what they give cannot be kept ({error})"
        self._targets.put(places, targets)
        return None

    def _decide(self) -> None:
        """Cut the model, look whether it pays, make the store. Always by the same samples, so always one answer."""
        self._decided = True
        try:
            some = self._some().to(self._device)
            few = some if self._lengths_known() else some.parts(TRIED)[0]
            self._check_worth_tracing(few)
            halves = split(self._model, some.inputs, self._moving)
            self._beside = halves.beside or self._beside
            boundary = self._eager(halves.prefix, some)
            self._check_independence(halves, some, boundary)
            store, message = self._new_store(halves, some, boundary)
            self._check_rehearsal(halves, few, store)
            self._store, self.module, self._traced = store, halves.suffix, constants_of(self._model)
            self._targets = TargetRows(len(store), self._target_lengths(halves))
            self._say(message)
            if isinstance(halves.prefix, Embedding) and self._take_features(few, boundary):
                return
            self._frozen = FrozenLayers(
                halves.prefix,
                lambda: self._loader.first(self._first),
                self._device,
                dataset=self._loader.dataset,
                views=self._views,
                size=store.size,
                precision=self._precision,
                exact=self._exact,
                options=self._options,
                say=self._say,
            )
        except NotSplittable as reason:
            if not isinstance(reason, NotWorthIt):
                self._say(f"the frozen layers run in every pass: {reason}")

    def _some(self) -> Batch:
        """A few samples: the first ones, or the longest text and the shortest, so that there is padding."""
        if self._lengths_known():
            order = self._lengths()[: len(self._loader.dataset)].argsort(descending=True, stable=True)
            chosen = order[[0, -1]] if len(order) > 1 else order
        else:
            chosen = self._loader.plan(self._first)[0][: 2 * TRIED]
        found = self._loader.of(chosen, self._first)
        return found if len(found) > 1 else self._loader.first(self._first).parts(2 * TRIED)[0]

    def _take_features(self, few: Batch, boundary: Boundary) -> bool:
        """Fill the store with features that are known, or do without one where those show that the data are random.

        False where there are none, or they are of other samples.
        """
        if self._features is None or self._loader.views or self._store is None:  # they are of images as they are
            return False
        known = self._features()
        places = {int(index): row for row, index in enumerate(known.indices)}
        rows = [places.get(int(index), -1) for index in few.indices]
        tolerance = same_sample(self._exact, self._device)
        if min(rows) < 0 or not close(known.features[rows], boundary[FEATURES][: len(few)], tolerance):
            return False
        if known.drew:
            self._say("the frozen layers run in every pass: reading some samples draws random numbers")
            self._store, self.module = None, self._model
            return True
        self._probes.read(self._first)
        self._store.put(known.indices, {FEATURES: known.features})
        self._targets.put(known.indices, known.targets)
        self._complete = {0}
        return True

    def _check_worth_tracing(self, few: Batch) -> None:
        if self._passes <= self._views:
            raise NotWorthIt("no sample is read twice")
        if self._options.use == "always" or not any(p.requires_grad for p in self._model.trunk.parameters()):
            return
        whole = self._work(self._model, few.inputs).seconds(self._device) / len(few)
        estimate = self._estimate(whole, 0.0, 0.0, self._device)
        if estimate.seconds_saved(len(self._loader.dataset)) < _SECONDS:
            raise NotWorthIt("there is too little to save")

    def _check_independence(self, halves: Split, some: Batch, boundary: Boundary) -> None:
        """A sample has to give the same beside others, and the shortest text without padding too."""
        place = len(some) - 1
        if self._lengths_known():
            alone = self._loader.of(some.indices[place:].cpu(), self._first).to(self._device)
        else:
            place, alone = 0, some.parts(max(1, len(some) // 2))[0]
        for name, tensor in self._eager(halves.prefix, alone).items():
            if not close(tensor, boundary[name][place : place + len(alone)], rounding(self._precision, self._device)):
                raise NotSplittable("what its frozen layers give for a sample depends on the others in the batch")

    def _check_rehearsal(self, halves: Split, few: Batch, store: RowStore) -> None:
        """The two parts have to do what the whole does, with rows as they come out of the store."""
        exact = self._eager(halves.prefix, few)
        kept = store.tried(few.indices, exact)
        if any(kept[name].shape != tensor.shape for name, tensor in exact.items()):
            raise NotSplittable("its texts are not padded to the length of a batch's longest one")
        rows = kept if store.is_exact else exact
        targets = None
        if halves.beside is not None:  # answers may be of any kind, so losses are compared
            self._check(few)
            targets = few.targets
        check_same(
            self._model,
            few.inputs,
            halves.suffix,
            move(rows, self._device),
            precision=self._precision,
            training=self._training,
            targets=targets,
        )

    def _new_store(self, halves: Split, few: Batch, boundary: Boundary) -> tuple[RowStore, str]:
        """The store, and what a user should know of it once it is trusted."""
        count = len(self._loader.dataset) * self._views
        columns = columns_of(boundary, halves.tokens, self._options.storage)
        lengths = self._lengths() if halves.tokens else None
        size = bytes_per_sample(columns, 1.0 if lengths is None else float(lengths.float().mean()))
        first = {name: rows[: len(few)] for name, rows in boundary.items()}
        below, above = self._work(halves.prefix, few.inputs), self._work(halves.suffix, move(first, self._device))
        if not below.operations and isinstance(few.inputs, torch.Tensor):
            raise NotSplittable(
                "its first layers are trained, or random, so that nothing stays the same between epochs"
            )
        device = self._device if self._has_room_on_gpu(size * count) else CPU
        seconds = [part.seconds(self._device) / len(few) for part in (below, above)]
        estimate = self._estimate(seconds[0], seconds[1] * (BACKWARD if self._training else 1.0), size, device)
        if self._options.use != "always" and estimate.gain < ENOUGH:
            raise NotSplittable(f"storing what they give would make it {estimate.gain:.1f} times as fast")
        targets = bytes_of_targets(few.targets) / len(few) * count
        memory = _MEMORY_SHARE * free_memory(CPU)
        if targets > max(memory, _ALWAYS):
            raise NotSplittable(f"the targets of all samples are {targets / 2**30:,.1f} GiB, too much for memory")
        where = "in memory" if device == CPU else "in the GPU's memory"
        try:
            folder = self._folder(size * count, memory - targets) if device == CPU else None
            where = where if folder is None else f"in {folder}"
            store = RowStore(columns, count, lengths=lengths, folder=folder, device=device)
        except (OSError, torch.OutOfMemoryError) as error:
            raise NotSplittable(f"there is no room for {size * count / 2**20:,.0f} MiB {where} ({error})") from error
        samples = len(self._loader.dataset)
        message = (
            f"the frozen layers run once for each of {count:,} {self._what()}: {size / 1024:,.1f} KiB each, "
            f"{size * count / 2**20:,.1f} MiB {where}; {self._passes} passes about {estimate.gain:.1f} times as fast "
            f"(on a small {'GPU' if self._device.type == 'cuda' else 'machine'} "
            f"{estimate.seconds_to_fill(samples):,.0f} s to fill, {estimate.seconds_saved(samples):,.0f} s saved)"
        )
        return store, message

    def _eager(self, prefix: nn.Module, batch: Batch) -> Boundary:
        boundary = boundary_of(batch, eager(prefix, self._device, self._precision), self._device)
        return {**boundary, **self._beside(batch.inputs)}

    def _what(self) -> str:
        return "samples" if self._views == 1 else f"views ({self._views} of each sample)"

    def _work(self, module: nn.Module, inputs: Any) -> Work:
        return counted(lambda: self._tried(module, inputs))

    @torch.no_grad()
    def _tried(self, module: nn.Module, inputs: Any) -> Any:
        with put_back(self._model), autocast(self._device, self._precision):
            return module(inputs)

    def _estimate(self, prefix: float, suffix: float, stored: float, kept: torch.device) -> Estimate:
        return Estimate(
            kept=kept,
            prefix=prefix,
            suffix=suffix,
            stored=stored,
            passes=self._passes,
            views=self._views,
        )

    def _has_room_on_gpu(self, size: float) -> bool:
        return self._device.type == "cuda" and size <= _MEMORY_SHARE * free_memory(self._device)

    def _folder(self, size: float, memory: float) -> Path | None:
        """None for main memory, of which so much may be taken; else where there is room on the disk."""
        if size <= (memory if self._options.memory is None else self._options.memory):
            return None
        folder = cache_folder() / "prefix"
        folder.mkdir(parents=True, exist_ok=True)
        if size > _DISK_SHARE * shutil.disk_usage(folder).free:
            raise NotSplittable(f"what they give is {size / 2**30:,.1f} GiB, too much for memory and for {folder}")
        return folder

    def _target_lengths(self, halves: Split) -> Tensor | None:
        has_tokens = isinstance(self._model.head, TaskHead) and self._model.head.has_token_targets
        return self._lengths() if has_tokens and halves.tokens else None

    def _lengths_known(self) -> bool:
        known = innermost(self._loader.dataset, "lengths")
        return known is not None and len(known) == len(self._loader.dataset)

    def _lengths(self) -> Tensor:
        known = innermost(self._loader.dataset, "lengths")
        if not self._lengths_known():
            raise NotSplittable("the data do not tell how many tokens each sample has")
        return torch.as_tensor(known, dtype=torch.long).repeat(self._views)
