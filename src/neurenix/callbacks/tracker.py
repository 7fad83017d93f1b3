"""Every epoch's numbers in an experiment tracker, through accelerate's interface to all of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, final

from ..errors import ConfigurationError, MissingPackageError, TrackerFailedWarning, UnknownNameError
from ._base import CALLBACKS, Callback, Logs


@final
@CALLBACKS.register("Tracker")
class Tracker(Callback):
    """Send losses, metrics and learning rates of every epoch to a tracker, from the main process alone.

    tracker: tensorboard, wandb, mlflow, trackio, aim, comet_ml, clearml, dvclive or swanlab, none of which is needed
    otherwise; or an object with `log(values, step)`, such as accelerate's own trackers once they were started.
    folder: for those that write files. project: the name under which the runs are collected.
    A tracker that cannot start ends the fit at once; one that fails later does not: a TrackerFailedWarning says so,
    and what it did not take is offered again after the next epoch.
    """

    def __init__(self, tracker: Any, folder: str | Path = "runs/trackers", project: str = "neurenix") -> None:
        self.tracker, self.folder, self.project = tracker, Path(folder), project
        if isinstance(tracker, str):
            _tracker_class(tracker)
        elif not hasattr(tracker, "log"):
            raise ConfigurationError(f"tracker={tracker!r} has no log(values, step); give a tracker or its name.")
        self._started: Any = None
        self._unsent: list[tuple[int, dict[str, float]]] = []

    def on_train_begin(self, logs: Logs) -> None:
        """Start the tracker, once for all fits."""
        if not self.run.is_main_process or self._started is not None:
            return
        self._started = self._start() if isinstance(self.tracker, str) else self.tracker

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Log what is a number; step: the epoch, from 1."""
        if self._started is None:
            return
        values = {name: value for name, value in logs.items() if isinstance(value, (int, float))}
        rates = {f"lr_{group}": rate for group, rate in self.run.learning_rates.items()}
        self._unsent.append((epoch + 1, {**values, **rates}))
        self._send()

    def on_train_end(self, logs: Logs) -> None:
        """Let a tracker that was started here write what it holds."""
        if isinstance(self.tracker, str) and self._started is not None:
            try:
                self._started.finish()
            except Exception as error:
                _warn("did not finish", error)
            self._started = None

    def _send(self) -> None:
        while self._unsent:
            step, values = self._unsent[0]
            try:
                self._started.log(values, step=step)
            except Exception as error:  # a server that is away must not end a night's work
                return _warn(f"took no numbers of {len(self._unsent)} epochs, from {step} on", error)
            del self._unsent[0]

    def _start(self) -> Any:
        kind = _tracker_class(str(self.tracker))
        if kind.requires_logging_directory:
            self.folder.mkdir(parents=True, exist_ok=True)
            tracker = kind(self.project, self.folder)
        else:
            tracker = kind(self.project)
        tracker.start()
        return tracker


def _warn(what: str, error: Exception) -> None:
    message = f"the tracker {what} ({type(error).__name__}: {error}); the run's own history has them all."
    warnings.warn(message, TrackerFailedWarning, stacklevel=2)


def _tracker_class(name: str) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if name not in LOGGER_TYPE_TO_CLASS:
        raise UnknownNameError("tracker", name, LOGGER_TYPE_TO_CLASS)
    if name not in {str(getattr(found, "value", found)) for found in get_available_trackers()}:
        raise MissingPackageError(f"tracker={name!r} needs its package: pip install {name.replace('_', '-')}")
    PartialState()  # accelerate's trackers ask it which process they are in
    return LOGGER_TYPE_TO_CLASS[name]
