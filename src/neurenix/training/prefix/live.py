"""Samples that are new in every epoch: nothing is stored, and the frozen layers run in every pass, the fastest way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, final

import torch
from torch import Tensor, nn

from ...backends import Forward, Inputs, counted, eager, fast_forward, is_eager, named
from ...data import Batch, DataLoader, work
from ...data._randomness import own_random_state
from ...devices import autocast
from ...models import PretrainedModel
from .feeds import Feed, ReuseOptions
from .frozen import TRIED
from .graph import NotSplittable, NotWorthIt
from .layout import Layout
from .rehearsal import check_same, put_back
from .split import Split, constants_of, split

_SECONDS = 5.0  # that all passes take at least, for models that have to be traced


@final
class LiveFeed:
    """Another feed's batches, with a module that runs the frozen layers by the backend that is fastest for them.

    For augmented samples, mixed ones, or views that an objective makes itself. Where the model cannot be cut, or eager
    torch is the fastest, this is the other feed. Both are decided by the first batch of the epoch `first`, so that a
    process that goes on with the fit decides alike.

    passes, moving, precision, exact, say: see ReusingFeed.
    """

    def __init__(
        self,
        model: PretrainedModel,
        loader: DataLoader,
        feed: Feed,
        device: torch.device,
        *,
        options: ReuseOptions,
        precision: str,
        exact: bool,
        first: int,
        passes: int,
        moving: frozenset[int],
        say: Callable[[str], None],
    ) -> None:
        self._model, self._loader, self._feed, self._device = model, loader, feed, device
        self._options, self._precision, self._exact = options, precision, exact
        self._first, self._passes, self._moving = first, passes, moving
        self._say = say
        self._fast: WithFastFrozenLayers | None = None
        self._traced: Any = None  # what the cut took for constant
        self._decided = False

    @property
    def module(self) -> nn.Module:
        """See Feed."""
        return self._feed.module if self._fast is None else self._fast

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The loader's batches, arranged in memory as the other feed does where that is used."""
        if not self._decided:
            with own_random_state():  # a forward that is looked at may draw
                self._decide()
        if self._fast is not None and self._traced != constants_of(self._model):
            self._fast = None
            self._say("the frozen layers run by eager torch from now on: something was changed in the model's layers")
        feed = self._loader.batches if self._fast is not None else self._feed.epoch
        yield from feed(epoch, start)

    def whole(self, batch: Batch, epoch: int) -> Batch:
        """See Feed."""
        return self._feed.whole(batch, epoch)

    def _decide(self) -> None:
        self._decided = True
        try:
            batch = self._loader.first(self._first).to(self._device)
            few = batch.parts(2 * TRIED)[0]
            self._check_worth(few)
            halves = split(self._model, few.inputs, self._moving)
            layout = self._rehearsed(halves, few)
            forward = self._fastest(halves.prefix, batch.inputs)
            if not is_eager(forward):
                self._fast = WithFastFrozenLayers(self._model, forward, halves.suffix, layout)
                self._traced = constants_of(self._model)
        except NotSplittable as reason:
            if not isinstance(reason, NotWorthIt):
                self._say(f"the frozen layers run by eager torch: {reason}")

    def _check_worth(self, few: Batch) -> None:
        """A trace takes a second or more; of a trunk that is all frozen none is made."""

        def run() -> None:
            with put_back(self._model), autocast(self._device, self._precision):
                self._model(few.inputs)

        if not any(parameter.requires_grad for parameter in self._model.trunk.parameters()):
            return
        if len(few) < 2:
            raise NotWorthIt("one sample does not show which sizes are the batch's")
        if self._options.use != "always":
            seconds = counted(run).seconds(self._device) / len(few) * self._samples(few.inputs)
            if seconds < _SECONDS:
                raise NotWorthIt("there is too little to save")

    def _samples(self, inputs: Inputs) -> float:
        return self._passes * work(self._loader.dataset, inputs)

    def _rehearsed(self, halves: Split, few: Batch) -> Layout:
        """How maps at the cut lie best, once both parts do what the whole does."""
        boundary = named(eager(halves.prefix, self._device, self._precision)(few.inputs))
        check_same(self._model, few.inputs, halves.suffix, boundary, precision=self._precision, training=True)
        layout = Layout(halves.suffix, training=True)
        layout(boundary)
        return layout

    def _fastest(self, prefix: nn.Module, inputs: Inputs) -> Forward:
        return fast_forward(
            prefix,
            inputs,
            samples=self._samples(inputs),
            precision=self._precision,
            exact=self._exact,
            backend=self._options.backend,
            arranged=Layout(prefix, training=False),
            say=self._say,
        )


@final
class WithFastFrozenLayers(nn.Module):
    """Inputs -> what the model gives, with its own parameters; the frozen layers run by a backend, without gradients.

    forward: of the frozen layers. suffix, layout: what comes after them, and how it is given their maps.
    """

    def __init__(self, model: PretrainedModel, forward: Forward, suffix: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.suffix = suffix
        self._frozen, self._layout, self._whole = forward, layout, [model]  # in a list, as it is no part of this
        self.training = suffix.training

    @property
    def head(self) -> nn.Module:
        """The model's."""
        return self._whole[0].head

    def forward(self, inputs: Inputs) -> Any:
        """The whole model by torch where somebody wants gradients of the samples."""
        if any(isinstance(part, Tensor) and part.requires_grad for part in named(inputs).values()):
            return self._whole[0](inputs)
        return self.suffix(self._layout(named(self._frozen(inputs))))
