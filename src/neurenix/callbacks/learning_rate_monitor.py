"""The learning rates that a fit really used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from ._base import CALLBACKS, Callback, Logs


@final
@CALLBACKS.register("LearningRateMonitor")
class LearningRateMonitor(Callback):
    """Keep the learning rate of every group at the end of each epoch, in `rates`: one dict per epoch.

    A group is there in the epochs in which it was trained.
    """

    def __init__(self) -> None:
        self.rates: list[dict[str, float]] = []

    def on_train_begin(self, logs: Logs) -> None:
        """Start empty."""
        self.rates = []

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Note the rates."""
        self.rates.append(dict(self.run.learning_rates))

    def state_dict(self) -> dict[str, Any]:
        """The rates so far."""
        return {"rates": [dict(rates) for rates in self.rates]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after these rates."""
        self.rates = [dict(rates) for rates in state["rates"]]
