"""Which feed each loader of a fit has in each phase of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from torch import nn

from ...data import DataLoader, is_random
from ...models import PretrainedModel
from ..objective import Objective
from ..processes import Processes
from .feeds import Features, Feed, OrdinaryFeed, ReuseOptions
from .layout import FeedByPixels
from .live import LiveFeed
from .reusing import ReusingFeed


@final
class Feeds:
    """The feeds of a fit; made anew in each phase, because the boundary of what is frozen moves with it.

    objective: what steps are made with.
    precision, exact: see neurenix.backends.fast_forward.
    features: gives what enters the head for the training data, where that has been asked for before; see ReusingFeed.
    """

    def __init__(
        self,
        model: PretrainedModel,
        processes: Processes,
        options: ReuseOptions,
        *,
        precision: str,
        exact: bool,
        objective: Objective,
        features: Callable[[], Features] | None = None,
    ) -> None:
        self._model, self._processes, self._options = model, processes, options
        self._precision, self._exact = precision, exact
        self._objective, self._features = objective, features
        self._first, self._passes = 0, 1
        self._moving: frozenset[int] = frozenset()
        self._made: dict[int, Feed] = {}
        self._said: set[str] = set()

    def begin_phase(self, first: int, passes: int) -> None:
        """A new set of layers is frozen, and modules are in the modes of training.

        first: epoch in which that began; passes: epochs for which it lasts.
        """
        self._first, self._passes = first, passes
        written = [module for module in self._model.modules() if module.training]
        self._moving = frozenset(id(buffer) for module in written for buffer in module.buffers(recurse=False))
        self._made = {}

    def training(self, loader: DataLoader) -> Feed:
        """The feed of the batches that steps are made with."""
        called = self._processes.wrapped(self._model)
        return self._feed(loader, called, training=True)

    def validation(self, loader: DataLoader) -> Feed:
        """The feed of the batches that are only looked at."""
        return self._feed(loader, self._model, training=False)

    def _feed(self, loader: DataLoader, called: nn.Module, *, training: bool) -> Feed:
        if id(loader) not in self._made:
            reason = self._hindrance(loader, training)
            if reason:
                self._say(f"the frozen layers run in every epoch: {reason}")
            feed: Feed = (
                OrdinaryFeed(called, loader, self._processes)
                if reason is not None
                else ReusingFeed(
                    self._model,
                    loader,
                    self._processes,
                    options=self._options,
                    precision=self._precision,
                    exact=self._exact,
                    first=self._first if training else 0,
                    passes=self._passes,
                    training=training,
                    moving=self._moving,
                    check=self._objective.check,
                    features=self._features if training else None,
                    say=self._say,
                )
            )
            alone = self._processes.count == 1  # torch's averaging of gradients wants them to lie as weights do
            if alone:
                feed = FeedByPixels(feed, training)
            self._made[id(loader)] = self._live(loader, feed) if training and reason is not None else feed
        return self._made[id(loader)]

    def _live(self, loader: DataLoader, feed: Feed) -> Feed:
        """For steps whose samples nothing can be stored of."""
        has_frozen = self._options.use != "never" and self._has_frozen_trunk()
        if not has_frozen or self._processes.count > 1 or self._objective.needs_modules(True):
            return feed
        return LiveFeed(
            self._model,
            loader,
            feed,
            self._processes.device,
            options=self._options,
            precision=self._precision,
            exact=self._exact,
            first=self._first,
            passes=self._passes,
            moving=self._moving,
            say=self._say,
        )

    def _hindrance(self, loader: DataLoader, training: bool) -> str | None:
        """Why frozen layers have to run for each batch: "" where nobody would expect otherwise, None for no reason."""
        if self._options.use == "never" or self._passes < 2 or not self._has_frozen_trunk():
            return ""
        if self._processes.count > 1:
            return "several processes share the data, and each would need the others' rows"
        if reason := self._objective.reads_inputs(training):
            return reason
        if loader.views is None and is_random(loader.dataset):
            return (
                "each epoch sees every sample in a new way. augmented_views=4 would keep four views of each" * training
            )
        return None

    def _has_frozen_trunk(self) -> bool:
        return any(not parameter.requires_grad for parameter in self._model.trunk.parameters())

    def _say(self, message: str) -> None:
        if message not in self._said and self._processes.is_main:
            self._said.add(message)
            print(f"neurenix: {message}")
