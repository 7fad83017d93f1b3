"""A bar for a terminal, a line now and then for a log file."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, final

from ...packages import require

_SECONDS_BETWEEN_LINES = 10.0


@final
class Progress:
    """Counts samples on standard error while a `with` block runs; silent when not shown."""

    def __init__(self, label: str, total: int | None, *, shown: bool) -> None:
        self.label, self.total, self.shown = label, total, shown
        self.done = 0
        self._bar: Any = None
        self._said = self._started = 0.0

    def __enter__(self) -> Progress:
        self._said = self._started = time.monotonic()
        if self.shown and sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
            self._bar.add_task(self.label, total=self.total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.shown and self.done:
            self._say()

    def advance(self, count: int) -> None:
        """Count `count` more samples."""
        self.done += count
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], count)
        elif self.shown and time.monotonic() - self._said > _SECONDS_BETWEEN_LINES:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        seconds = self._said - self._started
        of_total = "" if self.total is None else f"/{self.total}"
        print(f"{self.label}: {self.done}{of_total} samples in {seconds:.1f} s", file=sys.stderr)


def _bar() -> Any:
    rich = require("rich.progress", purpose="the progress bar", install="rich")
    console = require("rich.console", purpose="the progress bar", install="rich").Console(stderr=True)
    return rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeRemainingColumn(),
        console=console,
    )
