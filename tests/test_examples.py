"""The scripts in examples/, run as a user would run them, at a small size."""

from __future__ import annotations

import importlib
import runpy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
Run = Callable[..., list[str]]

pytestmark = pytest.mark.real_weights


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """run("name", "--option", …) gives the lines that a script prints."""

    def run(name: str, *options: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", [name, *options])
        monkeypatch.syspath_prepend(EXAMPLES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


def test_every_example_is_run() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    read_by_others = {"rendered_digits", "spoken_words"}
    run_here = {"adapt_inputs", "dense_heads", "digit_shift", "gradual_shift", "head_starts"}
    assert names == run_here | read_by_others | {"sentiment_shift"}  # which fetches its sentences


def test_solved_heads_are_better_than_random_ones_before_any_step(run: Run) -> None:
    lines = run("head_starts", "--small")
    rows = {line.split("  ")[0]: line.split() for line in lines if "  " in line}
    accuracy = {name: float(words[-2]) for name, words in rows.items() if "no step" in name or "everything" in name}
    assert accuracy["closed form, no step"] > 2 / 8  # twice what guessing among eight gives
    assert accuracy["closed form, no step"] > accuracy["random head, no step"] + 0.2
    assert accuracy["lp_ft: closed form, then everything"] > accuracy["everything, from a random head"] + 0.1
    assert sum("years" in line for line in lines) == 5  # the title, and a row for each head


@pytest.mark.parametrize(
    ("name", "layers", "epochs", "gain"),
    [
        ("unet", ["blocks.0", "blocks.1", "blocks.2", "blocks.4", "bn2"], 6, 0.08),
        ("anchor_free", ["blocks.2", "blocks.4", "bn2"], 6, 0.2),
    ],
)
def test_heads_for_pixels_and_boxes_learn_on_a_backbone_of_photographs(
    name: str, layers: list[str], epochs: int, gain: float, run: Run
) -> None:
    pytest.importorskip("faster_coco_eval")
    lines = run("dense_heads", "--scenes", "32", "--epochs", str(epochs), "--heads", name)
    [row] = [line.split() for line in lines if line.startswith(name)]
    assert row[1 : 1 + len(layers)] == layers
    assert sum("the frozen layers run once for each of 32 samples" in line for line in lines) == 1
    before, after = float(row[-3]), float(row[-2])
    assert before + gain < after <= 1


def test_other_inputs_as_three_tables(run: Run) -> None:
    pytest.importorskip("espeakng_loader")
    rows = [line.split("|")[1:-1] for line in run("adapt_inputs", "--small") if line.startswith("| ")]
    named = [(row[0].strip(), row[1].strip()) for row in rows]
    accuracy = {name: float(value) for name, value in named if value not in ("accuracy", "---")}
    assert len(accuracy) == 2 + 3 + 2
    pretrained, scratch = (
        accuracy[name] for name in ("EfficientNet-Lite0, ImageNet", "four convolutions from scratch")
    )
    assert pretrained > 1 / 6 and pretrained >= scratch  # of six words; a small run tells them little apart
    assert all(value > 2 / 8 for name, value in accuracy.items() if name[0].isdigit())  # of eight classes
    assert accuracy["64 x 64"] > accuracy["32 x 32"]


def test_gradual_self_training_as_a_table(run: Run) -> None:
    lines = run("gradual_shift", "--small", "--data", "gaussian", "--rows", "source", "gradual", "mixtures, stopped")
    found = {line[:26].strip(): float(line[26:32]) for line in lines if "published" in line}
    assert found["gradual"] > 95 > 65 > max(found["source"], found["mixtures, stopped"])


def test_drawn_digits_are_adapted_to_handwriting(run: Run) -> None:
    pytest.importorskip("matplotlib")
    lines = run("digit_shift", "--small", "--methods", "mcc", "deep_coral", "subspace_alignment")
    rows = {line[2:].split("  ")[0]: line[2:].split() for line in lines if "±" in line}
    assert list(rows) == ["source only", "mcc", "deep_coral", "subspace_alignment"]
    assert sum(line.startswith("* ") for line in lines) == 2  # the chosen row, and what its star means
    assert "chosen without labels" in lines[-1] or "no gap to close" in lines[-1]  # by chance, of 40 samples


def test_what_is_told_of_the_gap_to_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    closed = importlib.import_module("digit_shift").closed

    def row(name: str, target: float) -> SimpleNamespace:
        return SimpleNamespace(name=name, target=target)

    rows = (row("source only", 0.5), row("mcc", 0.75), row("dann", 0.7))
    table = SimpleNamespace(rows=rows, chosen=rows[2])
    assert closed(table, 0.9) == [
        "mcc: closes 62% of the gap",
        "dann: closes 50% of the gap",
        "chosen without labels: dann, 5.0 points below the best",
    ]
    assert closed(table, 0.5) == ["the oracle is no better than the source's model: there is no gap to close"]
