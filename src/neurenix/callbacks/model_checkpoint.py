"""Save the tuned model as training goes on."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from ..errors import ConfigurationError, UnknownNameError
from ._base import CALLBACKS, Callback, Logs
from ._monitor import Mode, Monitor


@final
@CALLBACKS.register("ModelCheckpoint")
class ModelCheckpoint(Callback):
    """Save the tuned model after every epoch, or only when a monitored quantity improved.

    filepath: a folder, as Finetuner.save writes and Finetuner.load reads; may hold `{epoch}` (from 1) and
    anything that is logged, e.g. "runs/{epoch:02d}-{val_accuracy:.3f}". A fixed name is replaced by each
    later save; a kill during it leaves the earlier or the later model, whole.
    save_every: look only at every so many epochs.
    """

    best: float | None
    last_saved: str | None

    def __init__(
        self,
        filepath: str | Path,
        monitor: str = "val_loss",
        save_best_only: bool = False,
        mode: Mode = "auto",
        save_every: int = 1,
    ) -> None:
        if save_every < 1:
            raise ConfigurationError(f"save_every={save_every} must be at least 1 epoch.")
        _check_template(str(filepath))
        self._monitor = Monitor(monitor, mode)
        self.filepath, self.monitor = str(filepath), monitor
        self.save_best_only, self.save_every = save_best_only, save_every
        self._start()

    def on_train_begin(self, logs: Logs) -> None:
        """Forget what earlier fits reached."""
        self._start()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Save, if this epoch is to be saved."""
        if (epoch + 1) % self.save_every:
            return
        if self.save_best_only:
            current = self._monitor.read(logs, epoch)
            if not self._monitor.is_better(current, self.best):
                return
            self.best = current
        self.last_saved = str(self._path(epoch, logs))
        if self.run.is_main_process:
            self.run.save(Path(self.last_saved))

    def monitored(self) -> tuple[str, ...]:
        """The quantity that says which epoch is best, where that is asked."""
        return (self.monitor,) if self.save_best_only else ()

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and where the newest saved model is."""
        return {"best": self.best, "last_saved": self.last_saved}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on comparing with the best value of the run that is resumed."""
        self.best, self.last_saved = state["best"], state["last_saved"]

    def _start(self) -> None:
        self.best = self.last_saved = None

    def _path(self, epoch: int, logs: Logs) -> Path:
        known = {**logs, "epoch": epoch + 1}
        try:
            return Path(self.filepath.format_map(known))
        except KeyError as error:
            raise UnknownNameError(f"logged quantity for filepath={self.filepath!r}:", error.args[0], known) from error
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"filepath={self.filepath!r} cannot be filled in: {error}.") from error


def _check_template(filepath: str) -> None:
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(filepath) if field is not None]
    except ValueError as error:
        raise ConfigurationError(
            f"filepath={filepath!r} is no template: {error}; write a literal brace twice."
        ) from error
    for field in fields:
        if not field.isidentifier():
            raise ConfigurationError(
                f"filepath={filepath!r}: {{{field}}} must be `epoch` or the name of something logged."
            )
