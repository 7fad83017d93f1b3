"""compare(): the same data and seeds for every method, what each reaches and costs, and what could not be tried."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import nn

from neurenix.errors import ConfigurationError, UnknownNameError
from neurenix.report import costs
from neurenix.transfer import Comparison, Finetuner, compare
from neurenix.transfer.comparison import Candidate


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 3))


@pytest.fixture
def data() -> tuple[numpy.ndarray, numpy.ndarray]:
    random = numpy.random.default_rng(0)
    targets = numpy.arange(36) % 3
    images = random.normal(size=(36, 3, 4, 4)).astype("float32")
    images[numpy.arange(36), targets] += 1.0
    return images, targets


def test_every_method_is_run_with_every_seed_or_left_out_by_name(network, data):
    found = compare(network, data, data, ["head", "lora", "prompt", "norm"], num_classes=3, epochs=2, seeds=[0, 1])
    assert {row.name for row in found.rows} == {"head", "lora", "norm"}
    assert "no blocks" in found.left_out["prompt"]
    assert all(row.spread is not None and row.seconds > 0 and row.file > 0 for row in found.rows)
    trained = {row.name: row.trained for row in found.rows}
    assert trained["head"] == 33 * 3 and trained["norm"] == 33 * 3 + 16
    assert "left out: prompt" in str(found) and "± " in str(found)


def test_a_score_is_what_the_tuner_by_itself_reaches(network, data):
    found = compare(network, data, data, {"mine": {"method": "full", "learning_rate": 1e-2}}, num_classes=3, epochs=2)
    alone = Finetuner(network, 3, strategy="full", learning_rate=1e-2)
    alone.fit(data, epochs=2, run=False)
    assert found.rows[0].score == alone.evaluate(data)["accuracy"]
    assert found.rows[0].name == "mine"


def test_a_budget_ends_a_fit_with_the_epoch(network, data):
    found = compare(network, data, data, ["norm"], num_classes=3, epochs=1_000_000, budget=0.3)  # else for hours
    assert found.rows[0].seconds < 30


def test_wrong_names_get_near_ones(network, data):
    with pytest.raises(UnknownNameError, match="closest: lora"):
        compare(network, data, data, ["lorra", "head"], num_classes=3, epochs=1)
    with pytest.raises(ConfigurationError, match="none of prompt could be tried; .* no blocks"):
        compare(network, data, data, ["prompt"], num_classes=3, epochs=1)
    with pytest.raises(ConfigurationError, match="nothing to compare"):
        compare(network, data, data, [])


def candidate(name: str, score: float, trained: int) -> Candidate:
    return Candidate(name=name, score=score, spread=0.01, trained=trained, seconds=1.0, memory=1.0, file=0.1)


def test_the_best_are_those_that_none_beats_with_as_few_parameters(tmp_path):
    from matplotlib.figure import Figure

    from neurenix.transfer.comparison import _ranked

    runs = [candidate("a", 0.9, 100), candidate("b", 0.8, 10), candidate("c", 0.8, 50), candidate("d", 0.95, 1000)]
    found = Comparison(metric="accuracy", rows=_ranked({run.name: [run] for run in runs}), left_out={})
    assert [row.name for row in found.best] == ["b", "a", "d"]
    assert [row.name for row in found.rows] == ["d", "a", "b", "c"]
    figure = Figure(figsize=(7, 4))
    costs(found, figure.subplots())
    figure.savefig(tmp_path / "costs.png")
    assert (tmp_path / "costs.png").stat().st_size > 5000
