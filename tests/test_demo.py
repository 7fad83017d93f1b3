"""The command line on the bundled clip art, as `make demo` calls it, and on wrong use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from PIL import Image

from neurenix.cli import main


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes that differ in colour; train/ and test/ with four pictures each."""
    random = numpy.random.default_rng(0)
    for split in ("train", "test"):
        for place, name in enumerate(("blue", "red")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                picture = random.integers(0, 120, (40, 40, 3), dtype="uint8")
                picture[..., 2 * (1 - place)] += 100
                Image.fromarray(picture).save(folder / f"{number}.png")
    return tmp_path / "data"


@pytest.mark.real_weights
def test_the_demo_at_a_small_budget(tmp_path, capsys):
    command = "fit --data clipart --strategy head --epochs 1 --batch_size 32 --baselines random pixels"
    assert main([*command.split(), "--input-shape", "128,128,3", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    accuracy = {
        line.split("│")[1].split()[0]: float(line.split("│")[2]) for line in printed.splitlines() if "│" in line
    }
    assert accuracy["transfer"] > 0.7
    assert accuracy["transfer"] > accuracy["logistic"] + 0.3 and accuracy["transfer"] > accuracy["the"] + 0.3
    assert {"model", "metrics.json", "history.json", "report.png"} <= {path.name for path in tmp_path.iterdir()}
    assert json.loads((tmp_path / "metrics.json").read_text())["accuracy"] == pytest.approx(
        accuracy["transfer"], abs=1e-3
    )
    assert "the saved model, loaded again, says:" in printed


def test_fit_evaluate_and_predict_on_a_folder(pictures, tmp_path, capsys):
    fit = f"fit --data {pictures} --model resnet18 --weights null --input-shape 32,32,3 --strategy full --epochs 2"
    assert main([*fit.split(), "--learning-rate", "1e-3", "--output", str(tmp_path / "run")]) == 0
    assert main(["evaluate", "--model", str(tmp_path / "run" / "model"), "--data", str(pictures / "test")]) == 0
    assert "accuracy: " in capsys.readouterr().out
    picture = next((pictures / "test" / "red").iterdir())
    assert main(["predict", "--model", str(tmp_path / "run" / "model"), str(picture)]) == 0
    assert capsys.readouterr().out.split("\t")[1] in ("red", "blue")


def test_models_are_listed(capsys):
    assert main(["models", "--domain", "nlp"]) == 0
    printed = capsys.readouterr().out
    assert "bert-base-uncased" in printed and "resnet50" not in printed


def test_print_config_gives_a_file_that_config_takes(pictures, tmp_path, capsys):
    wanted = ["fit", "--data", str(pictures), "--epochs", "3", "--freeze_layers", "conv1", "layer1"]
    assert main([*wanted, "--print_config"]) == 0
    (tmp_path / "run.yaml").write_text(capsys.readouterr().out)
    assert main(["fit", "--config", str(tmp_path / "run.yaml"), "--print_config"]) == 0
    again = capsys.readouterr().out
    assert "epochs: 3" in again and "- layer1" in again


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fitt"], "fit"),
        (["fit", "--modle", "resnet18"], "--model"),
        (["fit"], "--data"),
        (["fit", "--data", "clipart", "--model", "resnet19"], "resnet18"),
        (["fit", "--data", "clipart", "--baselines", "rndom"], "random"),
        (["fit", "--data", "nowhere"], "nowhere"),
        (["fit", "--data", "clipart", "--epochs", "many"], "epochs"),
        (["predict"], "--model"),
    ],
)
def test_wrong_use_ends_with_2_and_a_message(arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err


def test_the_module_can_be_run():
    done = subprocess.run(
        [sys.executable, "-m", "neurenix.cli", "--version"], capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 0 and done.stdout.startswith("neurenix ")
