"""SIGTERM and SIGINT during a fit: noted, so that the state can be saved before they take effect."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, final

_WATCHED = (signal.SIGINT, signal.SIGTERM)


@final
class Signals:
    """Inside the block a first signal is noted in `received`; a second one takes effect at once.

    Signals that are ignored stay ignored, and outside of the main thread, where Python allows no handlers,
    nothing is changed.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        self._install()
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        self._uninstall()
        if kind is None:
            self.take_effect()

    def take_effect(self) -> None:
        """Do what the noted signal would have done: KeyboardInterrupt, exit with 128 + number, or the caller's handler.

        Returns when the caller's own handler does.
        """
        number, self.received = self.received, None
        if number is None:
            return
        handler = self._previous.get(number)
        if callable(handler):
            handler(number, None)
        else:
            raise SystemExit(128 + number)

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _WATCHED:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):
                self._previous[number] = handler
                signal.signal(number, self._note)

    def _uninstall(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.received = self.received is not None, number
        if again:
            self.take_effect()
