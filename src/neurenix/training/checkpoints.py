"""The checkpoints of one run: files that say themselves whether they are whole, the newest two of them."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

from ..errors import ConfigurationError, DamagedCheckpointWarning, DiskFullError, SaveFailedWarning
from ..storage import file_sha256, sweep, write_state

_KEPT = 2
_SECONDS = 60.0
_LARGEST_SHARE = 0.05


@final
class Checkpoints:
    """`step-00000120.<sha256>.safetensors` in one folder.

    every: optimizer steps from one to the next; None is by time: once a minute, and less often where writing takes
    more than a twentieth of the time. on_save_error: "raise", or "warn" and train on.
    """

    def __init__(self, folder: Path, every: int | None = None, on_save_error: str = "raise") -> None:
        if every is not None and every < 1:
            raise ConfigurationError(f"checkpoint_every={every}; it is a count of steps, at least 1, or None.")
        if on_save_error not in ("raise", "warn"):
            raise ConfigurationError(f"on_save_error={on_save_error!r}; possible: 'raise', 'warn'.")
        self.folder = folder
        self._every, self._warns = every, on_save_error == "warn"
        self._written_at, self._cost = time.monotonic(), 0.0

    def due(self, steps: int) -> bool:
        """Whether to write one after this many steps."""
        if self._every is not None:
            return steps % self._every == 0
        return time.monotonic() - self._written_at >= max(_SECONDS, self._cost / _LARGEST_SHARE)

    def write(self, steps: int, state: Any) -> None:
        """Write one, and remove those that are older than the one before it."""
        started = time.monotonic()
        with self.tolerating_full_disks():
            self._keep(write_state(self.folder, f"step-{steps:08d}", state))
        self._written_at = time.monotonic()
        self._cost = self._written_at - started

    @contextlib.contextmanager
    def tolerating_full_disks(self) -> Iterator[None]:
        """A DiskFullError inside is a warning where that was asked for."""
        try:
            yield
        except DiskFullError as error:
            if not self._warns:
                raise
            warnings.warn(f"something of this run was not saved: {error}", SaveFailedWarning, stacklevel=4)

    def newest(self) -> Path | None:
        """The newest whole checkpoint, for read_state; damaged ones are named in a warning and removed."""
        sweep(self.folder)
        damaged: list[Path] = []
        whole = None
        for path in self._paths():
            if file_sha256(path) == path.name.split(".")[-2]:
                whole = path
                break
            damaged.append(path)
        if damaged:
            self._remove(damaged, whole)
        return whole

    def clear(self) -> None:
        """Remove all."""
        for path in self._paths():
            path.unlink(missing_ok=True)

    def keep_only_newest(self) -> None:
        """Remove all but the newest."""
        for path in self._paths()[1:]:
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step-*.safetensors"), key=lambda path: path.name[:13], reverse=True)

    def _keep(self, newest: Path) -> None:
        # A run that began anew, or another one, may have left later steps here: they are not of this course.
        others = [path for path in self._paths() if path != newest]
        older = [path for path in others if path.name[:13] < newest.name[:13]]
        for path in others:
            if path not in older[: _KEPT - 1]:
                path.unlink(missing_ok=True)

    def _remove(self, damaged: list[Path], whole: Path | None) -> None:
        names = ", ".join(path.name[:24] for path in damaged)
        consequence = f"{whole.name[:24]}… is used" if whole else "there is no other, so the run begins anew"
        warnings.warn(
            f"{len(damaged)} checkpoints in {self.folder} are damaged and removed: {names}…; {consequence}.",
            DamagedCheckpointWarning,
            stacklevel=4,
        )
        for path in damaged:
            path.unlink(missing_ok=True)
