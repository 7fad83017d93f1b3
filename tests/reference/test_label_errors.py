"""Flipped labels are found again, and clean data are left alone."""

from __future__ import annotations

import numpy
import pytest
import torch
from sklearn.datasets import load_digits, make_blobs

from neurenix.errors import ConfigurationError, LabelMismatchError
from neurenix.transfer import find_label_errors

DATA = {
    "synthetic": make_blobs(2000, 32, centers=8, cluster_std=4, random_state=0),
    "digits": load_digits(return_X_y=True),  # raw pixels, of which a linear head knows less
}


def flipped(targets: numpy.ndarray, share: float, seed: int) -> tuple[numpy.ndarray, set[int]]:
    random, classes = numpy.random.default_rng(seed), int(targets.max()) + 1
    chosen = random.choice(len(targets), round(share * len(targets)), replace=False)
    changed = targets.copy()
    changed[chosen] = (changed[chosen] + random.integers(1, classes, len(chosen))) % classes
    return changed, {int(place) for place in chosen}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "least"), [("synthetic", 0.95), ("digits", 0.79)])
def test_five_percent_of_wrong_labels(name: str, least: float, seed: int) -> None:
    features, targets = DATA[name]
    noisy, wrong = flipped(targets, 0.05, seed)
    found = find_label_errors(features, noisy)
    hits = wrong & set(found.indices)
    print(f"{name}: precision {len(hits) / len(found):.2f}, recall {len(hits) / len(wrong):.2f}")
    assert len(hits) / len(found) >= least and len(hits) / len(wrong) >= least
    suggestions = {error.index: error.suggested for error in found}
    right = [suggestions[place] == targets[place] for place in hits]
    assert numpy.mean(right) > 0.95


@pytest.mark.parametrize("name", DATA)
def test_clean_labels_are_left_alone(name: str) -> None:
    features, targets = DATA[name]
    assert len(find_label_errors(features, targets)) / len(targets) < 0.01


def test_names_and_order() -> None:
    features, targets = DATA["synthetic"]
    noisy, _ = flipped(targets, 0.02, 0)
    found = find_label_errors(torch.as_tensor(features), torch.as_tensor(noisy), classes=list("abcdefgh"))
    assert [error.doubt for error in found] == sorted((error.doubt for error in found), reverse=True)
    assert {error.given for error in found} <= set("abcdefgh") and found[0].given != found[0].suggested
    assert str(found).splitlines()[0] == f"{len(found)} of 2000 labels look wrong:" and "and 1" in str(found)[-12:]


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (numpy.zeros(10), LabelMismatchError, "float64 came for 10 samples"),
        (numpy.zeros((10, 2), int), LabelMismatchError, r"shape \(10, 2\)"),
        (numpy.zeros(10, int), ConfigurationError, r"\[10\] samples"),
        (numpy.arange(10) // 8, ConfigurationError, r"\[8, 2\] samples"),
    ],
)
def test_targets_that_cannot_be_judged(targets: numpy.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        find_label_errors(numpy.eye(10), targets)
