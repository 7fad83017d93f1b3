"""Gradual self-training against the numbers of Kumar, Ma & Liang, ICML 2020, table 1: 47.7 % alone, 98.8 % gradually.

The published figure of the source alone is that of one draw of the four means, whose like differ by 5 % and more: the
target's classes lie at random to the source's, so that half of the answers are right, give or take.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean

import pytest

PROVE = bool(os.environ.get("NEURENIX_PROVE"))


@pytest.fixture
def example(monkeypatch):
    """examples/gradual_shift.py as a module."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    import gradual_shift

    return gradual_shift


@pytest.mark.parametrize("seed", range(5 if PROVE else 1))
def test_gaussians_in_100_dimensions_reach_the_published_accuracy(seed, example):
    shift = example.gaussians(seed, small=not PROVE)
    tuner = example.of_the_source(shift)
    assert example.percent(shift, tuner) < 65
    example.gradual(shift, tuner, shift.way)
    assert example.percent(shift, tuner) == pytest.approx(98.8, abs=1.0)


@pytest.mark.skipif(not PROVE, reason="minutes; NEURENIX_PROVE=1 runs it")
def test_gaussians_with_the_optimizer_of_the_paper(example):
    """Adam at 0.001, batches of 32, 100 epochs: the same minimum, more slowly."""
    shift = example.gaussians(0)
    slow = {"source_epochs": 100, "epochs": 100, "batch_size": 32}
    shift = replace(shift, tuner=partial(shift.tuner, rate=1e-3), **slow)
    assert example.accuracy(shift, "gradual") == pytest.approx(98.8, abs=1.0)


@pytest.mark.skipif(not PROVE, reason="minutes; NEURENIX_PROVE=1 runs it")
@pytest.mark.parametrize("data", ["gaussian", "digits"])
def test_only_small_steps_reach_the_target(data, example):
    """The order of the paper's tables, on the mean of three draws, and a way that is found as good as one given."""
    shifts = [example.DATA[data](seed, False) for seed in range(3)]
    found = {row: mean(example.accuracy(shift, row) for shift in shifts) for row in example.ROWS}
    print({row: round(value, 1) for row, value in found.items()})
    assert max(found["source"], found["target at once"], found["mixtures"]) < found["gradual"] - 30
    assert found["whole way at once"] < found["gradual"] - 3
    assert found["gradual, found in a pool"] > found["gradual"] - 15
    assert found["not regularised"] < found["gradual"]
    assert found["mixtures, stopped"] > found["source"] - 10


@pytest.mark.skipif(not PROVE, reason="half a minute; NEURENIX_PROVE=1 runs it")
def test_digits_that_turn_are_followed(example):
    """Far fewer pictures of far fewer pixels than the paper's, so that it is the gap that is held to: 31.9 and 87.9."""
    shift = example.digits(0, small=True)
    tuner = example.of_the_source(shift)
    alone = example.percent(shift, tuner)
    example.gradual(shift, tuner, shift.way)
    assert alone < 35 and example.percent(shift, tuner) > alone + 25
