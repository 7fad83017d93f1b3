"""The folder of one fit: what was asked for, where it is, what came out; and the lock of who works in it.

runs/2026-11-24_03-40-12_resnet50/
run.json         the job, the environment, and whether it is finished
history.json     every epoch's numbers
skipped.jsonl    samples that could not be read, where there were any
checkpoints/     the newest two, while it runs
model/           the tuned model, at the end: Finetuner.load reads it
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from ..data import Skipped, skipped_lines
from ..errors import DamagedFileError, ResumeError, RunBusyError
from ..storage import read_json, sweep, write_bytes, write_json
from .checkpoints import Checkpoints
from .environment import differences
from .history import History

DEFAULT_ROOT = "runs"
RUN_FILE = "run.json"
MODEL_FOLDER = "model"
START = "weights at the start"
_LOCK = "lock"
_BUSY = (errno.EAGAIN, errno.EACCES)
Job = Mapping[str, Any]


@final
class RunFolder:
    """One run on disk, locked by this process until `close`.

    named: whether the caller chose the folder, so that the same call means the same run also when it is finished.
    """

    def __init__(self, path: Path, *, named: bool) -> None:
        self.path, self.named = path, named
        self.record: dict[str, Any] = {}
        self._lock: int | None = None

    @property
    def finished(self) -> bool:
        """Whether the fit came to its end."""
        return self.record.get("status") == "finished"

    @property
    def model_path(self) -> Path:
        """Where the tuned model lies once the run is finished."""
        return self.path / MODEL_FOLDER

    def checkpoints(self, every: int | None = None, on_save_error: str = "raise") -> Checkpoints:
        """The run's checkpoints."""
        return Checkpoints(self.path / "checkpoints", every, on_save_error)

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / RUN_FILE).is_file()

    def lock(self) -> None:
        """Take the folder, once; raises RunBusyError while another process has it."""
        if self._lock is not None:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.path / _LOCK)
        if self._lock is None:
            raise RunBusyError(
                f"another process trains in {self.path}; wait for it or stop it, or give another run folder."
            )
        sweep(self.path)

    def close(self) -> None:
        """Let others have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def begin(self, job: Job, environment: Mapping[str, Any]) -> None:
        """Start a new run here; what an earlier one left is removed, but for a finished model."""
        self.checkpoints().clear()
        self.record = {
            "status": "running",
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "job": dict(job),
            "environment": dict(environment),
        }
        write_json(self.path / RUN_FILE, self.record)

    def read(self) -> None:
        """Read what was begun here."""
        record = read_json(self.path / RUN_FILE)
        if not isinstance(record, dict) or not {"status", "job", "environment"} <= record.keys():
            raise DamagedFileError(f"{self.path / RUN_FILE} is no record of a run; give another folder.")
        self.record = record

    def check_job(self, job: Job, *, from_its_state: bool = False) -> None:
        """Raise ResumeError unless the run here is for this very job. from_its_state: wherever the weights are now."""
        ignored = {START} if from_its_state else set()
        then, now = ({k: v for k, v in record.items() if k not in ignored} for record in (self.record["job"], job))
        changed = differences(then, now)
        if changed:
            raise ResumeError(
                f"{self.path} holds another run: {'; '.join(changed[:5])}. To go on with it, call fit as then; for "
                "a new one give another folder, or resume=False to replace it."
            )

    def write_history(self, history: History, skipped: Sequence[Skipped]) -> None:
        """Every epoch so far, and every sample that could not be read."""
        write_json(self.path / "history.json", history.as_json())
        if skipped:
            write_bytes(self.path / "skipped.jsonl", skipped_lines(skipped).encode())

    def finish(self, save: Callable[[Path], None], state: Any, checkpoints: Checkpoints) -> None:
        """Write the tuned model, and, where the same call may come again, the whole state; remove the rest."""
        save(self.model_path)
        if self.named:
            checkpoints.write(state["progress"]["steps"], state)
            checkpoints.keep_only_newest()
        self.record = {**self.record, "status": "finished", "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        write_json(self.path / RUN_FILE, self.record)
        if not self.named:
            checkpoints.clear()


def runs_root() -> Path:
    """Where runs without a name of their own lie: $NEURENIX_RUNS, else ./runs."""
    return Path(os.environ.get("NEURENIX_RUNS") or DEFAULT_ROOT)


def open_run(
    run: str | Path | None, resume: str | Path | bool | None, name: str, job: Job, environment: Mapping[str, Any]
) -> RunFolder:
    """The locked folder of a job's run: the one given, an unfinished one of the same job, or a new one.

    run: a folder, or None for one named by time. resume: a folder that must hold a run; True: there must be one to
    go on with; False: begin anew; None: go on where there is one. name: what a new folder is called after the time.
    """
    if isinstance(resume, (str, Path)):
        run, resume = _the_same(run, resume), True
    job = json.loads(json.dumps(job))  # as it will be read back
    folder = RunFolder(Path(run), named=True) if run is not None else _unfinished(job, resume)
    if resume is True and (folder is None or not folder.exists()):
        where = run if run is not None else f"{runs_root()} for this job"
        raise ResumeError(f"there is no run to resume in {where}; leave resume out to begin one.")
    folder = folder or _new(name)
    folder.lock()
    try:
        _begin_or_read(folder, resume, job, environment)
    except BaseException:
        folder.close()
        raise
    return folder


def is_live(path: Path) -> bool:
    """Whether a process trains in this run folder now."""
    if not (path / _LOCK).exists():
        return False
    handle = _locked(path / _LOCK)
    if handle is not None:
        os.close(handle)
    return handle is None


def _the_same(run: str | Path | None, resume: str | Path) -> Path:
    if run is not None and Path(run).resolve() != Path(resume).resolve():
        raise ResumeError(f"run={str(run)!r} and resume={str(resume)!r} name two folders; give one of them.")
    return Path(resume)


def _begin_or_read(folder: RunFolder, resume: object, job: Job, environment: Mapping[str, Any]) -> None:
    if resume is False or not folder.exists():
        folder.begin(job, environment)
    else:
        folder.read()
        folder.check_job(job, from_its_state=resume is True)


def _unfinished(job: Job, resume: object) -> RunFolder | None:
    """The newest run of this very job below the default root that was begun, not ended, and that nobody works on."""
    if resume is False or not runs_root().is_dir():
        return None
    for path in sorted(runs_root().iterdir(), reverse=True):
        folder = RunFolder(path, named=False)
        if not folder.exists():
            continue
        with contextlib.suppress(DamagedFileError, RunBusyError):
            folder.read()
            if not folder.finished and not differences(folder.record["job"], job):
                folder.lock()
                return folder
    return None


def _new(name: str) -> RunFolder:
    stem = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{name}"
    for number in range(1, 1000):
        path = runs_root() / (stem if number == 1 else f"{stem}-{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            return RunFolder(path, named=False)
    raise ResumeError(f"{runs_root()} has a thousand runs called {stem}; give run= a name.")


def _locked(path: Path) -> int | None:
    """A handle whose lock ends with this process, even when it is killed; None while another process has it.

    A POSIX lock, because data workers, which may outlive a killed process by seconds, do not inherit it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        import fcntl

        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # this system has no such locks: whoever starts two processes in one folder is not stopped
        return handle
    except OSError as error:
        if error.errno in _BUSY:
            os.close(handle)
            return None
        return handle  # nor has this file system
    return handle
