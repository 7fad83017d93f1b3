"""The callback that leads an objective through the steps of an adaptation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from ...callbacks import Callback
from ...data import Batch, DataLoader
from ...training import Loop
from ._objective import Adaptation, ask


@final
class Steering(Callback):
    """Tells the objective how far the adaptation is, and its term of every epoch and step.

    target: all of the target's samples as an evaluation sees them, in their order. before: called once with the loop
    before the first step, when frozen layers are known.
    """

    def __init__(self, objective: Adaptation, target: DataLoader, before: Callable[[Loop], None]) -> None:
        self._objective, self._target, self._before = objective, target, before

    @property
    def _loop(self) -> Loop:
        return cast(Loop, self.run)

    def on_epoch_begin(self, epoch: int, logs: Any) -> None:
        """Not where a run goes on inside an epoch: what was seen at its beginning is in the checkpoint."""
        if self.run.steps == 0:
            self._before(self._loop)
        if self.run.steps % self.run.steps_per_epoch == 0:
            self._objective.term.begin_epoch(epoch, self._look)

    def on_train_batch_begin(self, batch: int, logs: Any) -> None:
        """Where the adaptation is."""
        self._objective.progress = self.run.steps / (self.run.epochs * self.run.steps_per_epoch)

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        """The model has moved."""
        self._objective.term.end_step(self._loop.model)

    def _look(self) -> tuple[Tensor, Tensor, Tensor]:
        answers, places = self._loop.ask(self._target, side_by_side)
        outputs = self._objective.outputs
        return answers[:, outputs:], answers[:, :outputs], places


def side_by_side(model: nn.Module, batch: Batch) -> Tensor:
    """[outputs, features] of a batch, (n, k + d)."""
    features, outputs = ask(model, batch.inputs)
    return torch.cat([outputs, features], 1)
