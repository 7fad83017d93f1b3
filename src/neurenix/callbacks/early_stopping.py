"""Stop when a monitored quantity no longer improves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from ..errors import ConfigurationError
from ._base import CALLBACKS, Callback, Logs
from ._monitor import Mode, Monitor


@final
@CALLBACKS.register("EarlyStopping")
class EarlyStopping(Callback):
    """End the fit after `patience` epochs in a row without an improvement of more than `min_delta`.

    monitor: a name from the epoch's logs. mode: "min", "max", or "auto" (by the loss or metric that it is).
    restore_best_weights: go back to the best epoch's weights when the fit ends, also at full length.
    baseline: an improvement resets the count only if it also beats this value.
    """

    wait: int  # epochs since the best one
    best: float | None
    best_epoch: int | None  # 0-based, as stopped_epoch
    stopped_epoch: int | None
    _best_weights: dict[str, Any] | None

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 3,
        min_delta: float = 0.0,
        mode: Mode = "auto",
        restore_best_weights: bool = False,
        baseline: float | None = None,
    ) -> None:
        if patience < 0:
            raise ConfigurationError(f"patience={patience} must be at least 0 epochs.")
        self._monitor = Monitor(monitor, mode, min_delta)
        self.monitor, self.patience, self.baseline = monitor, patience, baseline
        self.restore_best_weights = restore_best_weights
        self._start()

    def on_train_begin(self, logs: Logs) -> None:
        """Start counting anew."""
        self._start()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Compare with the best epoch; ask the run to stop when patience has run out."""
        current = self._monitor.read(logs, epoch)
        self.wait += 1
        if self._monitor.is_better(current, self.best):
            self.best, self.best_epoch = current, epoch
            if self.restore_best_weights:
                self._best_weights = self.run.snapshot()
            if self.baseline is None or self._monitor.is_better(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.run.stop(self._reason())

    def on_train_end(self, logs: Logs) -> None:
        """Put the best epoch's weights back, where that was asked for."""
        if self._best_weights is None:
            return
        self.run.restore(self._best_weights)
        self._best_weights = None

    def monitored(self) -> tuple[str, ...]:
        """The quantity that has to improve."""
        return (self.monitor,)

    def state_dict(self) -> dict[str, Any]:
        """The count, the best value, and the best weights where they are to be restored."""
        return {
            "wait": self.wait,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "stopped_epoch": self.stopped_epoch,
            "best_weights": self._best_weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting where state_dict was taken."""
        self.wait, self.best = state["wait"], state["best"]
        self.best_epoch, self.stopped_epoch = state["best_epoch"], state["stopped_epoch"]
        self._best_weights = state["best_weights"]

    def _start(self) -> None:
        self.wait = 0
        self.best = self.best_epoch = self.stopped_epoch = self._best_weights = None

    def _reason(self) -> str:
        if self.best is None or self.best_epoch is None:
            return f"{self.monitor} had no finite value in {self.wait} epochs"
        best = f"{self.best:.6g} (epoch {self.best_epoch + 1})"
        return f"{self.monitor} has not improved on {best} for {self.wait} epochs"
