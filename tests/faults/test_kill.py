"""SIGKILL anywhere, saves included: the same call goes on, to the same bits, and leaves nothing behind."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from tests.faults.children import PROVE, check_files, finish, start

from neurenix.storage import sweep

RANDOM, AIMED = (40, 10) if PROVE else (5, 3)


def test_killed_at_random_moments(expected: tuple[str, float], tmp_path: Path) -> None:
    wanted, seconds = expected
    moments, kills, runs = random.Random(7), 0, 0
    while kills < RANDOM:
        folder = tmp_path / str(runs) / "run"
        folder.parent.mkdir()
        for _ in range(moments.randint(1, 6)):
            process = start(folder, workers=moments.choice([0, 0, 2]))
            process.join(moments.uniform(0.1, seconds))
            if process.exitcode is not None:
                break
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            kills += 1
            check_files(folder)
        assert finish(folder) == wanted, f"run {runs}, after {kills} kills"
        assert not [path for path in folder.rglob(".*")]
        runs += 1
    print(f"{kills} kills in {runs} runs: each went on to the same bits")


@pytest.mark.parametrize("number", range(AIMED))
def test_killed_inside_a_save(number: int, expected: tuple[str, float], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    place = ("write", "rename", "renamed")[number % 3]
    process = start(folder, (place, 2 + 5 * number))
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    check_files(folder)
    assert finish(folder) == expected[0]
    assert not [path for path in folder.rglob(".*")]


def test_leftovers_of_live_processes_stay(tmp_path: Path) -> None:
    from neurenix.storage import _machine

    dead = tmp_path / f".a.json.{_machine()}-4194305.abcdefgh"  # beyond Linux' largest process number
    live = tmp_path / f".a.json.{_machine()}-{os.getpid()}.abcdefgh"
    foreign = tmp_path / ".a.json.00000000-1.abcdefgh"
    old = tmp_path / ".a.json.00000000-2.abcdefgh"
    below = tmp_path / "best" / dead.name  # a model that was being saved when its process died
    below.parent.mkdir()
    for path in (dead, live, foreign, old, below):
        path.touch()
    os.utime(old, (1, 1))
    assert sorted(sweep(tmp_path)) == sorted([dead, old, below])
    assert live.exists() and foreign.exists()
