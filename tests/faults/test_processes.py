"""Two processes give what one gives; when one is killed the other ends with a name, and the run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy
import pytest

SCRIPT = Path(__file__).with_name("fit_in_two.py")
LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
    # --multi_gpu means "several processes"; with --cpu alone accelerate starts one, whatever --num_processes says
    "accelerate": [
        *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"),
        *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
    ],
    "none": [],
}


def launch(folder: Path, launcher: str, accumulation: int = 1, pause: float = 0.0) -> Any:
    folder.mkdir(exist_ok=True)
    arguments = [str(SCRIPT), str(folder), "4", str(accumulation), str(pause)]
    with (folder / "output").open("a") as output:
        return subprocess.Popen(
            [sys.executable, *LAUNCHERS[launcher], *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def answers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("answer-*.json"))]


def run(folder: Path, launcher: str, accumulation: int = 1) -> list[dict[str, Any]]:
    process = launch(folder, launcher, accumulation)
    assert process.wait(100) == 0, (folder / "output").read_text()[-3000:]
    return answers(folder)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run(tmp_path_factory.mktemp("two"), "accelerate")


def test_two_processes_give_the_weights_of_one(two: list[dict[str, Any]], tmp_path: Path) -> None:
    [one] = run(tmp_path, "none", accumulation=2)
    assert two[0]["digest"] == two[1]["digest"]
    for name, weights in one["weights"].items():
        numpy.testing.assert_allclose(two[0]["weights"][name], weights, rtol=1e-6, atol=1e-6)
    assert two[0]["val_accuracy"] == one["val_accuracy"]


def test_one_is_killed_and_the_run_goes_on(two: list[dict[str, Any]], tmp_path: Path) -> None:
    process = launch(tmp_path, "torchrun", pause=0.02)
    ended = time.monotonic() + 60
    while len(list((tmp_path / "run").glob("checkpoints/step-*"))) < 2:
        assert process.poll() is None and time.monotonic() < ended, (tmp_path / "output").read_text()[-3000:]
        time.sleep(0.02)
    os.kill(int((tmp_path / "process-1").read_text()), signal.SIGKILL)
    killed = time.monotonic()
    assert process.wait(60) != 0
    print(f"the other process ended after {time.monotonic() - killed:.1f} s")
    error = tmp_path / "error-0"
    assert error.exists(), (tmp_path / "output").read_text()[-3000:]
    assert error.read_text() == "ProcessLostError"
    resumed = run(tmp_path, "torchrun")
    assert "going on after step" in (tmp_path / "output").read_text()
    assert [answer["digest"] for answer in resumed] == [answer["digest"] for answer in two]
