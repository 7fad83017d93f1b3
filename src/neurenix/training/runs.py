"""A fit inside its run folder: begun, gone on with, or taken as it ended."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..data import DataLoader
from ..errors import ConfigurationError, NeurenixError, NeurenixWarning, NonBitExactResumeWarning, ResumeError
from ..memory import kept_memory
from ..storage import read_state
from .checkpoints import Checkpoints
from .environment import differences
from .history import History
from .loop import Loop
from .run_folder import Job, RunFolder, open_run
from .state import restore_callbacks, restore_result


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """See Finetuner.fit, which documents each of them."""

    run: str | Path | Literal[False] | None = None
    resume: str | Path | bool | None = None
    checkpoint_every: int | None = None
    strict: bool = False
    on_save_error: str = "raise"

    @property
    def keeps(self) -> bool:
        """Whether anything may be left on the disk."""
        return self.run is not False

    def __post_init__(self) -> None:
        Checkpoints(Path(), self.checkpoint_every, self.on_save_error)
        if not isinstance(self.run, (str, Path, type(None))) and self.run is not False:
            raise ConfigurationError(f"run={self.run!r}; give a folder, None for one named by time, or False for none.")
        if self.run is False and self.resume:
            raise ConfigurationError(f"run=False keeps nothing on disk, so resume={self.resume!r} cannot be.")


@kept_memory()
def fit_in_run(
    loop: Loop,
    train: DataLoader,
    validation: DataLoader | None,
    epochs: int,
    *,
    job: Callable[[], Job],
    options: RunOptions,
    prepare: Callable[[], None],
) -> History:
    """Train in a run folder. job: describes the fit. prepare: what comes before the first step of a new run."""
    if options.run is False:
        prepare()
        return loop.fit(train, validation, epochs)
    with _opened(loop, job, options) as found:
        if found.newest is None:
            prepare()
            return found.train(loop, train, validation, epochs, None)
        state = read_state(found.newest)
        if found.finished:
            return _as_it_ended(loop, state, found.newest)
        if loop.is_main_process:
            print(f"neurenix: going on after step {state['progress']['steps']} of {found.newest.parents[1]}")
        return found.train(loop, train, validation, epochs, state)


@dataclass(frozen=True)
class _Found:
    """newest: the newest whole checkpoint. folder: in the main process, unless there is no place for one."""

    newest: Path | None
    finished: bool
    folder: RunFolder | None
    checkpoints: Checkpoints | None

    def train(self, loop: Loop, train: DataLoader, validation: DataLoader | None, epochs: int, state: Any) -> History:
        return loop.fit(train, validation, epochs, run=self.folder, checkpoints=self.checkpoints, state=state)


@contextlib.contextmanager
def _opened(loop: Loop, job: Callable[[], Job], options: RunOptions) -> Iterator[_Found]:
    folder: RunFolder | None = None
    checkpoints: Checkpoints | None = None

    def find() -> tuple[Path | None, bool]:
        nonlocal folder, checkpoints
        folder = _folder(loop, job(), options)
        if folder is None:
            return None, False
        checkpoints = folder.checkpoints(options.checkpoint_every, options.on_save_error)
        newest = checkpoints.newest()
        if newest is not None and not folder.finished:
            _check_environment(folder, loop.environment(), options.strict)
        return newest, folder.finished

    try:
        newest, finished = loop.processes.from_main(find)
        yield _Found(newest, finished, folder, checkpoints)
    finally:
        if folder is not None:
            folder.close()


def _folder(loop: Loop, job: Job, options: RunOptions) -> RunFolder | None:
    run = options.run or None
    try:
        return open_run(run, options.resume, loop.model.name, job, loop.environment())
    except OSError as error:
        if run is not None or options.resume or isinstance(error, NeurenixError):
            raise
        warnings.warn(
            f"this fit has no run folder and could not go on if it were interrupted: {error}. Give run= a folder that "
            "can be written, or run=False.",
            NeurenixWarning,
            stacklevel=6,
        )
        return None


def _check_environment(folder: RunFolder, now: dict[str, Any], strict: bool) -> None:
    changed = differences(folder.record["environment"], now)
    if not changed:
        return
    if strict:
        raise ResumeError(
            f"{folder.path} cannot go on with the same bits ({'; '.join(changed)}); bring these back, or leave out "
            "strict=True."
        )
    warnings.warn(
        f"{folder.path} goes on, but not with the same last bits: {'; '.join(changed)}.",
        NonBitExactResumeWarning,
        stacklevel=6,
    )


def _as_it_ended(loop: Loop, state: Any, newest: Path) -> History:
    restore_result(loop.model, loop.objective, loop.base, loop.optimizer, loop.history, state)
    restore_callbacks(loop.callbacks, state)
    loop.model.eval()
    if loop.is_main_process:
        print(f"neurenix: {newest.parents[1]} is finished; its result is taken. resume=False trains anew")
    return loop.history
