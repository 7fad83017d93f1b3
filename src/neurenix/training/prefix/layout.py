"""A feed's images and maps by pixels, where what they are for is faster so; see neurenix.backends.layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import final

import torch
from torch import nn

from ...backends import Inputs, by_pixels, wants_pixels
from ...data import Batch
from ...data._batch import rows
from ...data._randomness import own_random_state
from ...devices import autocast
from .feeds import Feed
from .graph import NotSplittable
from .rehearsal import put_back

_TRIED = 2  # samples


@final
class FeedByPixels:
    """The batches of another feed, laid out by pixels where its module convolves and can read them so.

    A forward that takes views of maps as they lie in memory cannot; it gets them as they came.
    """

    def __init__(self, feed: Feed, device: torch.device, precision: str) -> None:
        self._feed, self._device, self._precision = feed, device, precision
        self._tried: tuple[nn.Module, bool] | None = None

    @property
    def module(self) -> nn.Module:
        """That of the other feed."""
        return self._feed.module

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The other feed's batches."""
        for batch in self._feed.epoch(epoch, start):
            yield replace(batch, inputs=by_pixels(batch.inputs)) if self._reads(batch.inputs) else batch

    def whole(self, batch: Batch, epoch: int) -> Batch:
        """As the other feed gives it."""
        return self._feed.whole(batch, epoch)

    def _reads(self, inputs: Inputs) -> bool:
        """Whether the module wants pixels: looked at with its first batch, and by no clock, so always the same."""
        if self._tried is None or self._tried[0] is not self.module:
            wants = self._device.type == "cpu" and wants_pixels(self.module, inputs)
            self._tried = (self.module, wants and self._runs(inputs))
        return self._tried[1]

    @torch.no_grad()
    def _runs(self, inputs: Inputs) -> bool:
        module = self.module
        if isinstance(module, nn.parallel.DistributedDataParallel):  # the other processes need not take part
            module = module.module
        try:
            with own_random_state(), put_back(module), autocast(self._device, self._precision):
                module(by_pixels(rows(inputs, slice(_TRIED))))
        except (RuntimeError, ValueError, NotSplittable):
            return False
        return True
