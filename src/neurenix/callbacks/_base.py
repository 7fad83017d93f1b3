"""The hooks that a callback can have, named as in Keras."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import UnknownNameError
from ..registry import Registry

Logs = Mapping[str, float]


class Run(Protocol):
    """What a callback may see and do of the run that it is attached to (the loop implements it)."""

    epochs: int  # epochs that were asked for
    steps_per_epoch: int
    batch_size: int

    @property
    def epoch(self) -> int:
        """0-based epoch in progress."""
        ...

    @property
    def steps(self) -> int:
        """Optimizer steps done in this fit."""
        ...

    @property
    def is_main_process(self) -> bool:
        """True in one process of a distributed run, and always in a single one."""
        ...

    @property
    def learning_rates(self) -> dict[str, float]:
        """Learning rate now, per named group of layers."""
        ...

    @property
    def phase(self) -> str:
        """What is trained now, in words ("head", "all layers", …)."""
        ...

    def stop(self, reason: str) -> None:
        """End the fit after this epoch."""
        ...

    def save(self, path: Path) -> None:
        """Save the tuned model as Finetuner.save does."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """A copy of the trainable state (for restore_best_weights)."""
        ...

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Put a snapshot back."""
        ...


CALLBACKS: Registry[type[Callback]] = Registry("callback")


class Callback:
    """Subclass and implement the hooks you need; `self.run` is the run once training has begun.

    Epoch logs hold `loss`, each metric by name, and the same with `val_` where a validation set was given.
    A callback starts anew with every on_train_begin; a resumed run calls load_state_dict after it.
    """

    run: Run

    def attach(self, run: Run) -> None:
        """Called once by the loop, before on_train_begin."""
        self.run = run

    def on_train_begin(self, logs: Logs) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs) -> None:
        """After the last epoch, also after an early stop."""

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Before the first batch of an epoch. epoch: 0-based."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """After an epoch and its validation. logs: loss, metrics, val_loss, val_metrics, seconds."""

    def on_train_batch_begin(self, batch: int, logs: Logs) -> None:
        """Before a training batch. batch: 0-based within the epoch."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """After a training batch. logs: `samples` seen in this epoch; loss only where it costs no sync."""

    def on_test_begin(self, logs: Logs) -> None:
        """Before an evaluation pass."""

    def on_test_end(self, logs: Logs) -> None:
        """After an evaluation pass. logs: loss and metrics."""

    def monitored(self) -> tuple[str, ...]:
        """Names in the epoch's logs without which this callback cannot work; looked for before training begins."""
        return ()

    def state_dict(self) -> dict[str, Any]:
        """State that a resumed run needs, as JSON values and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what state_dict gave."""


def check_callback(callback: Callback, logged: Sequence[str]) -> None:
    """Raise UnknownNameError for a hook that is nearly named as one of Callback's, and for a monitor without a value.

    logged: names that the epochs of the fit will have.
    """
    hooks = [name for name in vars(Callback) if name.startswith("on_")]
    for name in dir(callback):
        if name.startswith("on_") and name not in hooks and difflib.get_close_matches(name, hooks, cutoff=0.85):
            raise UnknownNameError(
                f"callback hook in {type(callback).__name__}", name, hooks, hint="It would never be called."
            )
    for name in callback.monitored():
        if name not in logged:
            hint = "Give fit() a validation dataset." if name.startswith("val_") else ""
            raise UnknownNameError("logged quantity", name, logged, hint=hint)
