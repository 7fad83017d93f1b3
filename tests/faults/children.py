"""Processes that run the fits of jobs.py, forked from a server that has loaded everything."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.jobs import fit_and_tell

from neurenix.storage import file_sha256

PROVE = bool(os.environ.get("NEURENIX_PROVE"))
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.jobs", "accelerate", "torchmetrics", "neurenix.vision"])


def run(target: Callable[..., None], *arguments: Any) -> Any:
    """A started child process."""
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def start(folder: Path, aim: tuple[str, int] | None = None, workers: int = 0) -> Any:
    """A child that fits in `folder`."""
    return run(fit_and_tell, folder, folder.parent / "answer", aim, workers)


def finish(folder: Path, workers: int = 0) -> str:
    process = start(folder, workers=workers)
    process.join(120)
    assert process.exitcode == 0
    return (folder.parent / "answer").read_text()


def check_files(folder: Path) -> None:
    """Whatever has a final name is whole."""
    for path in folder.glob("checkpoints/step-*"):
        assert file_sha256(path) == path.name.split(".")[-2]
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
