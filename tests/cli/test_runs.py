"""A fit from the shell: killed, resumed, evaluated, used, verified."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neurenix.cli import main
from neurenix.cli._data import Part, part_of
from neurenix.errors import ConfigurationError


def shell(*words: str, folder: Path, wait: bool = True) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "neurenix.cli", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NEURENIX_RUNS": str(folder / "runs")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if wait:
        process.wait(120)
    return process


def text(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=120)[0]


def test_killed_resumed_evaluated_used_and_verified(
    fit: list[str], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "resnet18-data"
    process = shell(*fit, "--checkpoint_every", "1", folder=tmp_path, wait=False)
    while not list(run.glob("checkpoints/step-0000000[3-9]*")):
        assert process.poll() is None, text(process)
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    text(process)

    resumed = text(shell("resume", str(run), folder=tmp_path))
    assert "is not finished" in resumed and "going on after step" in resumed
    assert "the saved model, loaded again, says:" in resumed
    whole = tmp_path / "whole"
    text(shell(*fit, "--output", str(whole), folder=tmp_path))
    weights = [next((folder / "model").glob("*.safetensors")).name for folder in (run, whole)]
    assert weights[0] == weights[1]  # named by their content

    assert main(["evaluate", "--model", str(run), "--data", str(pictures / "test")]) == 0
    assert "accuracy: " in capsys.readouterr().out
    assert main(["predict", "--model", str(run), str(next((pictures / "test" / "red").iterdir()))]) == 0
    assert capsys.readouterr().out.split("\t")[1] in ("red", "blue")
    assert main(["verify", str(run)]) == 0 and " 0 of them wrong" in capsys.readouterr().out
    file = run / "model" / weights[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert main(["verify", str(run)]) == 3 and file.name in "".join(capsys.readouterr())


def test_the_same_command_goes_on_and_another_one_is_refused(
    fit: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*fit, "--output", str(tmp_path / "run")]
    assert main(words) == 0
    stored = json.loads((tmp_path / "run" / "command.json").read_text())
    assert stored["options"]["epochs"] == 3
    capsys.readouterr()
    assert main(words) == 0
    assert "is finished; its result is taken" in capsys.readouterr().out
    assert main([*words, "--learning_rate", "0.5"]) == 2
    assert "learning_rate None, now 0.5" in capsys.readouterr().err
    assert main([*words, "--learning_rate", "0.01", "--resume", "false"]) == 0
    assert "is finished" not in capsys.readouterr().out
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert "is finished" in capsys.readouterr().out


def test_baselines_are_done_once(fit: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*fit, "--output", str(tmp_path / "run"), "--baselines", "random", "pixels"]
    assert main(words) == 0
    table = capsys.readouterr().out.partition("Is transfer helping?")[2].partition("learning curves")[0]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.count("is finished; its result is taken") == 2
    assert printed.partition("Is transfer helping?")[2].partition("learning curves")[0] == table


def test_without_a_name_each_finished_command_has_a_folder_of_its_own(
    fit: list[str], runs_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*fit[:-4], "--epochs", "1"]) == 0
    assert main([*fit[:-4], "--epochs", "1"]) == 0
    assert {path.name for path in runs_folder.iterdir()} == {"resnet18-data", "resnet18-data-2"}


def test_a_config_file_gives_the_same_run(fit: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*fit, "--print_config"]) == 0
    (tmp_path / "fit.yaml").write_text(capsys.readouterr().out)
    assert main(["fit", "--config", str(tmp_path / "fit.yaml"), "--output", str(tmp_path / "a")]) == 0
    assert main([*fit, "--output", str(tmp_path / "b")]) == 0
    first, second = (next((tmp_path / name / "model").glob("*.safetensors")).name for name in "ab")
    assert first == second


def test_a_config_file_runs_nothing(fit: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = tmp_path / "hostile.yaml"
    hostile.write_text(f"model: !!python/object/apply:os.system ['touch {tmp_path / 'ran'}']\n")
    assert main(["fit", "--config", str(hostile)]) == 2
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["resume"], 2, "resume RUN"),
        (["resume", "nowhere"], 2, "holds no command.json"),
        (["verify"], 2, "verify PATH"),
        (["verify", "nowhere"], 2, "nothing at nowhere"),
        (["fetch"], 2, "fetch resnet50"),
        (["fetch", "resnet49"], 2, "resnet50"),
        (["fetch", "resnet50"], 5, "HF_HUB_OFFLINE"),
        (["extract"], 2, "--data"),
    ],
)
def test_exit_codes(words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code
    assert message in capsys.readouterr().err


def test_training_that_fails_has_a_code_of_its_own(
    fit: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*fit, "--optimizer", "sgd", "--learning_rate", "1e30", "--clip_norm", "null", "--precision", "fp32"]
    assert main([*words, "--output", str(tmp_path / "run")]) == 4
    assert "NaN" in capsys.readouterr().err or "inf" in capsys.readouterr().err


def test_extract_writes_arrays_and_says_what_they_are(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["extract", "--data", str(pictures / "train"), "--model", "resnet18", "--weights", "null"]
    words += [
        "--layers",
        "layer1",
        "layer2",
        "--output",
        str(tmp_path / "f.safetensors"),
        "--cache_dir",
        str(tmp_path / "c"),
    ]
    assert main(words) == 0
    assert "16 samples, 192 columns" in capsys.readouterr().out
    described = json.loads((tmp_path / "f.json").read_text())
    assert described["columns"] == {"layer1": [0, 64], "layer2": [64, 192]} and described["classes"] == ["blue", "red"]
    assert main(["verify", str(tmp_path / "f.safetensors"), str(tmp_path / "c")]) == 0


def test_doctor_tells_the_machine_and_forecasts_a_job(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["doctor", "--json", "--data", str(pictures), "--model", "resnet18", "--weights", "null"]
    assert main([*words, "--batch_size", "4", "--epochs", "7"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["forecast"]["steps per epoch"] == 4 and found["forecast"]["seconds per step"] > 0
    assert found["forecast"]["peak memory GiB"] > 0.1 and found["advice"]["memory"] == "enough"
    assert "precision" in found["machine"] and "torch" in found["packages"]
    assert main(["doctor"]) == 0
    assert "forecast" not in capsys.readouterr().out


@pytest.mark.parametrize(("part", "folder"), [("train", "train"), ("val", "val"), ("test", "test")])
def test_data_is_spelled_alike_in_every_command(pictures: Path, part: Part, folder: str) -> None:
    (pictures / "val").mkdir()
    shutil.copytree(pictures / "test" / "red", pictures / "val" / "red")
    assert {Path(path).parent.parent.name for path in part_of(str(pictures), part).paths} == {folder}
    archive = shutil.make_archive(str(pictures.parent / "packed"), "zip", pictures)
    assert {Path(path).parent.parent.name for path in part_of(archive, part).paths} == {folder}
    whole = part_of(str(pictures / "train"), part)
    assert {Path(path).parent.parent.name for path in whole.paths} == {"train"}
    expected = "train" if part == "train" else "test"
    assert {Path(path).parent.parent.name for path in part_of("clipart", part).paths} == {expected}


def test_nothing_is_measured_on_what_was_trained_on_by_accident(pictures: Path) -> None:
    shutil.rmtree(pictures / "test")
    with pytest.raises(ConfigurationError, match=r"has train/ and none of test/, val/.*give .*train\."):
        part_of(str(pictures), "test")


def test_extract_and_evaluate_take_the_word_clipart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "resnet18", "--weights", "null", "--layers", "layer1", "--pooling", "avg"]
    output = tmp_path / "features.safetensors"
    extract = ["extract", "--data", "clipart", *words, "--output", str(output), "--cache_dir", str(tmp_path / "cache")]
    assert main(extract) == 0
    assert "160 samples, 64 columns" in capsys.readouterr().out
    assert main(["evaluate", "--model", str(tmp_path / "nowhere"), "--data", "clipart"]) == 2
