"""Where a fit is: everything that the loop counts, in one record that a checkpoint can hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Progress:
    """epoch: of this fit, 0-based. place: batches of this epoch's plan that are done. steps: optimizer steps of this
    fit that are done, of which epoch_steps in this epoch, over `samples` samples.

    trained: logs of this epoch's training, once that is over and its validation is not.
    measured: whether metrics were fed in this epoch; mixed samples have no outputs that a metric could judge.
    plateaus, stalled, best_loss: of the validation loss, for what goes by plateau.
    largest_part: samples that are computed at once since memory ran out; None while whole batches fit.
    """

    epoch: int = 0
    place: int = 0
    steps: int = 0
    epoch_steps: int = 0
    samples: int = 0
    trained: dict[str, Any] | None = None
    measured: bool = False
    plateaus: int = 0
    stalled: int = 0
    best_loss: float = float("inf")
    stop_reason: str | None = None
    largest_part: int | None = None

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Progress:
        """The record that `state` gave."""
        return cls(**state)

    def state(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def begin_epoch(self) -> None:
        """Nothing of this epoch is done yet."""
        self.place = self.epoch_steps = self.samples = 0
        self.trained, self.measured = None, False

    def finish_step(self, place: int, samples: int) -> None:
        """One more optimizer step, up to this place of the epoch's plan."""
        self.place, self.samples = place, self.samples + samples
        self.steps, self.epoch_steps = self.steps + 1, self.epoch_steps + 1

    def end_epoch(self) -> None:
        """On to the next epoch, of which nothing is done yet."""
        self.epoch += 1
        self.begin_epoch()

    @property
    def is_inside_epoch(self) -> bool:
        """Whether a part of this epoch is done."""
        return self.place > 0 or self.trained is not None

    def see_validation_loss(self, loss: float, patience: int) -> None:
        """Count epochs without a better loss; `patience` of them are a plateau, after which counting starts anew."""
        if loss < self.best_loss:
            self.best_loss, self.stalled = loss, 0
            return
        self.stalled += 1
        if self.stalled >= patience:
            self.plateaus, self.stalled, self.best_loss = self.plateaus + 1, 0, float("inf")
