"""SIGTERM and SIGINT: the state is saved within a step, then they do what they always do."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from tests.faults.children import PROVE, check_files, finish, run
from tests.faults.jobs import fit, fit_until_told

from neurenix.errors import RunBusyError
from neurenix.training.signals import Signals

SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130}


def steps_done(folder: Path) -> int:
    """Of the only checkpoint, which the signal made the process write."""
    [checkpoint] = (folder / "checkpoints").iterdir()
    return int(checkpoint.name.split(".")[0].removeprefix("step-"))


@pytest.mark.parametrize("number", range(20 if PROVE else 4))
def test_the_state_is_saved_and_the_code_is_theirs(number: int, expected: tuple[str, float], tmp_path: Path) -> None:
    kind = list(SIGNALS)[number % 2]
    folder = tmp_path / "run"
    process = run(fit_until_told, folder, 0.01)
    while not (folder / "history.json").exists():  # one epoch is done
        time.sleep(0.01)
        assert process.is_alive()
    time.sleep(random.Random(number).uniform(0, 1))
    os.kill(process.pid, kind)
    sent = time.monotonic()
    process.join(30)
    assert process.exitcode == SIGNALS[kind]
    assert time.monotonic() - sent < 5
    check_files(folder)
    assert 8 <= steps_done(folder) < 48
    assert finish(folder) == expected[0]


def test_a_second_process_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = run(fit_until_told, folder, 0.02)
    while not (folder / "run.json").exists():
        time.sleep(0.01)
    with pytest.raises(RunBusyError, match="another process trains in"):
        fit(folder)
    process.kill()
    process.join()
    fit(folder)


def test_the_first_signal_waits_and_the_second_does_not() -> None:
    with pytest.raises(KeyboardInterrupt), Signals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.received == signal.SIGINT
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one has to end it")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_after_the_last_step_still_counts() -> None:
    with pytest.raises(SystemExit) as ended, Signals():
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143


def test_handlers_of_the_caller_are_called_and_ignored_signals_stay_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    before = [signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))]
    before.append(signal.signal(signal.SIGINT, signal.SIG_IGN))
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGINT)
            assert signals.received is None
            signal.raise_signal(signal.SIGTERM)
            assert signals.received == signal.SIGTERM and not seen
            signals.take_effect()
            assert seen == [signal.SIGTERM] and signals.received is None
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def test_outside_of_the_main_thread_nothing_is_touched() -> None:
    handler, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with Signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [handler]
