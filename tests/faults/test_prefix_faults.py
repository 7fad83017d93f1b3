"""SIGKILL while rows of frozen layers are stored and kept, and several processes at once: never a wrong row."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.faults.children import CONTEXT, PROVE, check_files, run
from tests.faults.jobs import aim_at, digest
from tests.unit.prefix.fits import Images, tuner_for

from neurenix.storage import file_sha256

KILLS, AIMED = (30, 12) if PROVE else (4, 3)
BATCHES = 10 + 2  # of training and validation
NAMES = ("head", "last stage") if PROVE else ("head",)  # tracing takes each process some seconds


class Slow(Images):
    """Takes its time to read."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        time.sleep(0.005)
        return super().__getitem__(index)


class Place:
    """Run folders and a cache folder of a test's own. name: of the model in prefix/fits.py."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.home, self.name = folder, folder / "home", name
        folder.mkdir(exist_ok=True)

    def start(self, folder: str, workers: int = 0, aim: tuple[str, int] | None = None, together: Any = None) -> Any:
        """A process that fits in a run folder. aim: see jobs.aim_at. together: a barrier to wait at."""
        answer = self.folder / f"{folder}.txt"
        return run(fit_and_tell, self.folder / folder, self.home, answer, self.name, workers, aim, together)

    def finish(self, folder: str) -> str:
        """What a fit that nobody disturbs any more ends with."""
        process = self.start(folder)
        process.join(120)
        assert process.exitcode == 0
        return (self.folder / f"{folder}.txt").read_text()

    def wait(self, process: Any, count: int) -> None:
        """Until so many batches are kept, or the process ends."""
        while process.is_alive() and len(list(self.home.rglob("*.safetensors"))) < count:
            time.sleep(0.002)

    def check(self) -> list[Path]:
        """What is kept; whatever has a final name is whole."""
        there = list(self.home.rglob("*.safetensors"))
        assert [path for path in there if file_sha256(path) != path.name.split(".")[-2]] == []
        for folder in self.folder.iterdir():
            check_files(folder)
        return there

    def check_end(self, run: str = "") -> None:
        """All rows are there, and nothing else is, in the run folder that was gone on with or in all of them."""
        assert len(self.check()) == BATCHES
        assert [path for path in self.home.rglob("*") if path.is_file() and path.suffix != ".safetensors"] == []
        assert not list((self.folder / run).rglob(".*"))


def fit_and_tell(
    folder: Path, home: Path, answer: Path, name: str, workers: int, aim: tuple[str, int] | None, together: Any
) -> None:
    """What such a process does."""
    multiprocessing.set_start_method("fork", force=True)
    os.environ["NEURENIX_HOME"] = str(home)
    torch.set_num_threads(1)
    tuner = tuner_for(name, "always", optimizer="adam", learning_rate=0.01)
    if together is not None:
        together.wait(60)
    if aim is not None:
        aim_at(*aim)
    tuner.fit(Slow(39), Slow(8, seed=1), batch_size=4, epochs=3, num_workers=workers, run=folder, checkpoint_every=2)
    answer.write_text(digest(tuner))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, float]]:
    """What each fit ends with, and the seconds that it takes."""
    found = {}
    for number, name in enumerate(NAMES):
        place = Place(tmp_path_factory.mktemp(f"whole-{number}"), name)
        place.finish("first")  # the server has loaded everything after it
        again = Place(tmp_path_factory.mktemp(f"again-{number}"), name)
        began = time.monotonic()
        found[name] = again.finish("run"), time.monotonic() - began
        again.check_end()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_killed_at_random_moments(name: str, undisturbed: dict[str, tuple[str, float]], tmp_path: Path) -> None:
    """Gone on with in the same run folder, or begun anew in another one with what the killed ones kept."""
    wanted, seconds = undisturbed[name]
    moments, kills, places, partly = random.Random(11), 0, 0, 0
    while kills < KILLS:
        place = Place(tmp_path / str(places), name)
        runs = 0
        for _ in range(moments.randint(1, 4)):
            process = place.start(f"run-{runs}", workers=moments.choice([0, 0, 2]))
            if moments.random() < 0.3:
                process.join(moments.uniform(0.2, 0.9) * seconds)
            else:
                place.wait(process, moments.randint(0, BATCHES - 1))
                process.join(moments.uniform(0, 0.02))
            if process.exitcode is not None:
                break
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            kills += 1
            partly += 0 < len(place.check()) < BATCHES
            runs += moments.choice([0, 1])
        assert place.finish(f"run-{runs}") == wanted, f"place {places}, after {kills} kills"
        place.check_end(f"run-{runs}")
        places += 1
    print(f"{kills} kills, {partly} of them while rows were being kept: the same bits each time")


@pytest.mark.parametrize("number", range(AIMED))
def test_killed_inside_a_write(number: int, undisturbed: dict[str, tuple[str, float]], tmp_path: Path) -> None:
    """Of the first 18 writes one is the run's, and five are checkpoints'."""
    place = Place(tmp_path, "head")
    process = place.start("run", aim=(("write", "rename", "renamed")[number % 3], 4 + number))
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert 0 < len(place.check()) < BATCHES
    assert place.finish("run" if number % 2 else "other") == undisturbed["head"][0]
    assert len(place.check()) == BATCHES
    assert not [path for path in place.home.rglob(".*")]


def test_processes_that_fill_the_same_folder_at_once(undisturbed: dict[str, tuple[str, float]], tmp_path: Path) -> None:
    place, count = Place(tmp_path, "head"), 4 if PROVE else 2
    together = CONTEXT.Barrier(count)
    processes = [place.start(f"run-{number}", together=together) for number in range(count)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * count
    assert {(tmp_path / f"run-{number}.txt").read_text() for number in range(count)} == {undisturbed["head"][0]}
    place.check_end()


def test_a_process_that_is_killed_beside_another_does_not_disturb_it(
    undisturbed: dict[str, tuple[str, float]], tmp_path: Path
) -> None:
    """What the dead one was writing is swept by the next; what the live one is writing is not."""
    place, together = Place(tmp_path, "head"), CONTEXT.Barrier(2)
    killed = place.start("killed", aim=("write", 8), together=together)
    live = place.start("live", together=together)
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    assert place.finish("third") == undisturbed["head"][0]
    live.join(60)
    assert live.exitcode == 0 and (tmp_path / "live.txt").read_text() == undisturbed["head"][0]
    assert len(place.check()) == BATCHES and not [path for path in place.home.rglob(".*")]
