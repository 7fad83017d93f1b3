"""How far training is, for a person who watches."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO, final

from ._base import CALLBACKS, Callback, Logs

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@final
@CALLBACKS.register("ProgressBar")
class ProgressBar(Callback):
    """A bar with samples per second and time left on a terminal; one plain line per epoch anywhere else.

    Only the main process of a distributed run prints. file: where to, by default stdout.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self.file = file
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._fit_began = self._epoch_began = 0.0
        self._first_epoch: int | None = None
        self._steps_before = 0
        self._samples_per_second = 0.0

    def on_train_begin(self, logs: Logs) -> None:
        """Start the clock, and the bar where there is a terminal."""
        self._fit_began, self._first_epoch = time.perf_counter(), None
        if self.run.is_main_process:
            self._progress = _bar(self._output())

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Set the bar back to the left."""
        self._epoch_began, self._steps_before = time.perf_counter(), self.run.steps
        self._first_epoch = epoch if self._first_epoch is None else self._first_epoch
        if self._progress is not None:
            self._progress.start()
            label = f"epoch {epoch + 1}/{self.run.epochs}"
            self._task = self._progress.add_task(label, total=self.run.steps_per_epoch, speed="")

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Move the bar."""
        elapsed = time.perf_counter() - self._epoch_began
        self._samples_per_second = logs.get("samples", 0) / max(elapsed, 1e-9)
        if self._progress is not None and self._task is not None:
            done = self.run.steps - self._steps_before
            self._progress.update(self._task, completed=done, speed=_speed(self._samples_per_second))

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Replace the bar by the epoch's line."""
        self._close()
        if self.run.is_main_process:
            print(self._line(epoch, logs), file=self._output(), flush=True)

    def on_train_end(self, logs: Logs) -> None:
        """Leave the terminal as it was, also after an error."""
        self._close()
        self._progress = None

    def _close(self) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.stop()
            self._progress.remove_task(self._task)
            self._task = None

    def _line(self, epoch: int, logs: Logs) -> str:
        begun = epoch if self._first_epoch is None else self._first_epoch
        per_epoch = (time.perf_counter() - self._fit_began) / (epoch + 1 - begun)
        left = per_epoch * (self.run.epochs - epoch - 1)
        numbers = [
            f"{name} {value:.4f}" for name, value in logs.items() if isinstance(value, float) and name != "seconds"
        ]
        parts = [f"epoch {epoch + 1}/{self.run.epochs}", *numbers, _speed(self._samples_per_second)]
        return "  ".join([*parts, f"{_duration(left)} left"] if left else parts)

    def _output(self) -> TextIO:
        return sys.stdout if self.file is None else self.file


def _bar(file: TextIO) -> Progress | None:
    """A rich progress bar that vanishes when it is stopped; None where the output is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=file)
    if not console.is_terminal:
        return None
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, console=console, transient=True)


def _speed(samples_per_second: float) -> str:
    digits = 0 if samples_per_second >= 10 else 1
    return f"{samples_per_second:.{digits}f} samples/s"


def _duration(seconds: float) -> str:
    """87 -> `1m 27s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
