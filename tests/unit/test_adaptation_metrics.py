"""Metrics of two domains in one stream, and the callback that chooses an epoch by them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from neurenix.errors import ConfigurationError, EmptyDatasetError, LabelMismatchError, UnknownNameError
from neurenix.transfer.adaptation.selection import (
    CRITERIA,
    AdaptationMetrics,
    Evidence,
    LabelFreeChoice,
    criteria_for,
)
from neurenix.transfer.adaptation.selection.expected_shares import expected_shares
from neurenix.transfer.adaptation.selection.row_sample import RowSample

CLASSES, FEATURES = 3, 5
NAN = float("nan")


def stream(seed: int = 0, source: int = 60, target: int = 80, trained: int = 0) -> tuple[Tensor, Tensor]:
    """outputs (n, 3 + 5), targets (n, 2) of both domains, mixed."""
    generator = torch.Generator().manual_seed(seed)
    count = source + target + trained
    domains = torch.tensor([0.0] * source + [1.0] * target + [2.0] * trained)
    rows = torch.randn(count, CLASSES + FEATURES, generator=generator) + domains[:, None] * 0.3
    labels = torch.randint(CLASSES, (count,), generator=generator).float()
    order = torch.randperm(count, generator=generator)
    return rows[order], torch.stack([domains, labels], 1)[order]


def evidence_of(outputs: Tensor, targets: Tensor) -> Evidence:
    """The same by hand."""
    source, target, trained = (targets[:, 0] == domain for domain in range(3))
    return Evidence(
        task="multi_class",
        source_features=outputs[source, CLASSES:],
        source_outputs=outputs[source, :CLASSES],
        source_targets=targets[source, 1].long(),
        target_features=outputs[target, CLASSES:],
        target_outputs=outputs[target, :CLASSES],
        training_features=outputs[trained, CLASSES:] if trained.any() else None,
    )


def fed(metrics: AdaptationMetrics, outputs: Tensor, targets: Tensor, batch: int = 17) -> AdaptationMetrics:
    for start in range(0, len(outputs), batch):
        metrics.update(outputs[start : start + batch], targets[start : start + batch])
    return metrics


def made(**options: Any) -> AdaptationMetrics:
    return AdaptationMetrics(["accuracy"], "multi_class", CLASSES, **options)


@pytest.mark.parametrize("trained", [0, 40])
def test_values_are_those_of_the_rows(trained: int) -> None:
    outputs, targets = stream(trained=trained)
    metrics = fed(made(target_labels=True), outputs, targets)
    values, evidence = metrics.compute(), evidence_of(outputs, targets)
    evidence = replace(evidence, expected_shares=expected_shares(evidence))
    assert tuple(values) == metrics.names
    for name in criteria_for("multi_class"):
        assert values[name] == pytest.approx(CRITERIA[name]().score(evidence), rel=1e-12), name
    for domain, name in enumerate(("source", "target")):
        own = targets[:, 0] == domain
        right = outputs[own, :CLASSES].argmax(1) == targets[own, 1]
        assert values[f"{name}_accuracy"] == pytest.approx(float(right.float().mean()))


def test_target_labels_reach_no_criterion() -> None:
    outputs, targets = stream()
    hidden = targets.clone()
    hidden[targets[:, 0] == 1, 1] = NAN
    with_labels = fed(made(target_labels=True), outputs, targets).compute()
    without = fed(made(), outputs, hidden).compute()
    assert with_labels.pop("target_accuracy") > 0
    assert with_labels == without
    assert made().names == tuple(without)


def test_class_shares_are_those_that_the_first_model_expects() -> None:
    """They are kept for the models that follow, and for a run that goes on."""
    metrics = fed(made(), *stream(0))
    metrics.compute()
    expected = metrics.expected_shares
    assert expected is not None and torch.equal(expected, expected_shares(evidence_of(*stream(0))))
    metrics.reset()
    fed(metrics, *stream(1)).compute()
    other = made()
    other.load_state(metrics.state())
    assert metrics.expected_shares is expected
    assert other.expected_shares is not None and torch.equal(other.expected_shares, expected)


def test_only_the_labelled_part_of_the_target_is_reported() -> None:
    outputs, targets = stream()
    some = targets.clone()
    some[(targets[:, 0] == 1).nonzero().flatten()[:40], 1] = NAN
    known = (some[:, 0] == 1) & ~some[:, 1].isnan()
    right = outputs[known, :CLASSES].argmax(1) == some[known, 1]
    value = fed(made(target_labels=True), outputs, some).compute()["target_accuracy"]
    assert value == pytest.approx(float(right.float().mean()))


def test_state_goes_on_in_another_process() -> None:
    outputs, targets = stream(trained=10)
    first = fed(made(), outputs[:75], targets[:75])
    second = made()
    second.load_state(first.state())
    whole = fed(made(), outputs, targets, batch=150).compute()
    assert fed(second, outputs[75:], targets[75:]).compute() == whole
    first.reset()
    assert fed(first, outputs, targets, batch=9).compute() == whole


def test_a_long_stream_is_sampled_alike_however_it_is_cut() -> None:
    stream_rows = torch.arange(5000.0)[:, None]
    samples = []
    for batch in (7, 640, 5000):
        sample = RowSample(300, seed=3)
        for part in stream_rows.split(batch):
            sample.add(part)
        samples.append(sample.rows())
    assert samples[0] is not None and len(samples[0]) == 300
    assert all(torch.equal(samples[0], other) for other in samples[1:])
    assert torch.equal(samples[0], samples[0].sort(0).values)
    assert abs(float(samples[0].mean()) - 2500) < 4 * 5000 / math.sqrt(12 * 300)


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_other_tasks_have_several_labels(task: Any) -> None:
    outputs, targets = stream()
    labels = torch.randint(2, (len(outputs), CLASSES), generator=torch.Generator().manual_seed(4)).float()
    several = torch.cat([targets[:, :1], labels], 1)
    name = "accuracy" if task == "multi_label" else "mae"
    values = fed(AdaptationMetrics([name], task, CLASSES), outputs, several).compute()
    assert set(values) == {f"source_{name}", *criteria_for(task)}
    assert all(math.isfinite(value) for value in values.values())


def test_what_is_not_finite_is_judged_as_nan() -> None:
    outputs, targets = stream()
    outputs[(targets[:, 0] == 1).nonzero()[0], 0] = NAN
    values = fed(made(), outputs, targets).compute()
    assert all(math.isnan(values[name]) for name in criteria_for("multi_class"))


def test_mistakes_are_named() -> None:
    outputs, targets = stream()
    with pytest.raises(LabelMismatchError, match="a domain and labels"):
        made().update(outputs, targets[:, 1])
    with pytest.raises(LabelMismatchError, match="features behind"):
        made().update(outputs[:, :CLASSES], targets)
    source = targets[:, 0] == 0
    with pytest.raises(EmptyDatasetError, match="60 of the source and 0 of the target"):
        fed(made(), outputs[source], targets[source]).compute()
    with pytest.raises(UnknownNameError, match="closest: snd"):
        made(criteria=["sndd"])
    with pytest.raises(ConfigurationError, match="not defined for regression; defined: "):
        fed(AdaptationMetrics([], "regression", CLASSES, criteria=["snd"]), outputs, stream_values(targets)).compute()


def stream_values(targets: Tensor) -> Tensor:
    return torch.cat([targets, targets[:, 1:], targets[:, 1:]], 1)


# --- the callback ----------------------------------------------------------------------------------------------


class FakeRun:
    """What the callback needs of a run: its weights are one number, the epoch."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.weight, self.snapshots = epochs, -1, 0

    def snapshot(self) -> dict[str, Any]:
        self.snapshots += 1
        return {"weight": torch.tensor(self.weight)}

    def restore(self, snapshot: dict[str, Any]) -> None:
        self.weight = int(snapshot["weight"])


# im, source_error, target_accuracy: the third epoch is chosen, the fourth has unlearned the source, the second is best
EPOCHS = [(0.2, 0.02, 0.5), (0.6, 0.03, 0.9), (0.8, 0.04, 0.7), (0.9, 0.40, 0.3), (0.7, 0.02, 0.8)]


def logs(epoch: int) -> dict[str, float]:
    im, error, accuracy = EPOCHS[epoch]
    return {
        "loss": 1.0,
        "val_im": im,
        "val_source_error": error,
        "val_class_spread": 3.0,
        "val_target_accuracy": accuracy,
    }


def run_epochs(callback: LabelFreeChoice, run: FakeRun, epochs: range) -> None:
    for epoch in epochs:
        run.weight = epoch
        callback.on_epoch_end(epoch, logs(epoch))


def test_the_chosen_epoch_is_put_back_and_the_gap_is_told() -> None:
    callback, run = LabelFreeChoice("multi_class", ["im"]), FakeRun(5)
    assert callback.monitored() == ("val_im", "val_source_error", "val_class_spread")
    callback.attach(run)
    callback.on_train_begin({})
    run_epochs(callback, run, range(5))
    callback.on_train_end({})
    assert callback.chosen_epoch == run.weight == 2
    assert callback.gap is not None and callback.gap.gap == pytest.approx(0.2)
    assert "epoch 3, target_accuracy 0.7000" in str(callback.gap) and "epoch 2, 0.9000" in str(callback.gap)


def test_epochs_before_the_first_are_no_candidates() -> None:
    callback, run = LabelFreeChoice("multi_class", ["im"], first_epoch=4), FakeRun(5)
    callback.attach(run)
    callback.on_train_begin({})
    run_epochs(callback, run, range(5))
    callback.on_train_end({})
    assert callback.chosen_epoch == run.weight == 4 and run.snapshots == 1


def test_the_model_from_before_is_a_candidate() -> None:
    callback, run = LabelFreeChoice("multi_class", ["im"], first_epoch=-1), FakeRun(1)
    callback.attach(run)
    callback.on_train_begin({})
    callback.on_epoch_end(-1, logs(4))
    run_epochs(callback, run, range(1))
    callback.on_train_end({})
    assert callback.chosen_epoch == run.weight == -1
    assert str(callback.gap).startswith("chosen without target labels: the model from before the first epoch, ")


def test_a_run_that_goes_on_chooses_the_same() -> None:
    first, second, run = LabelFreeChoice("multi_class", ["im"]), LabelFreeChoice("multi_class", ["im"]), FakeRun(5)
    first.attach(run)
    first.on_train_begin({})
    run_epochs(first, run, range(3))
    state = first.state_dict()
    json.dumps(state, default=lambda value: value.tolist())  # JSON values and tensors
    second.attach(run)
    second.on_train_begin({})
    second.load_state_dict(state)
    run_epochs(second, run, range(3, 5))
    second.on_train_end({})
    assert (second.chosen_epoch, run.weight) == (2, 2)
    assert second.gap is not None and second.gap.oracle_epoch == 1


def test_without_target_metrics_there_is_no_gap() -> None:
    callback, run = LabelFreeChoice("multi_class", ["im"]), FakeRun(1)
    callback.attach(run)
    callback.on_train_begin({})
    callback.on_epoch_end(0, {name: value for name, value in logs(0).items() if "target" not in name})
    callback.on_train_end({})
    assert callback.gap is None and callback.chosen_epoch == 0


def test_a_criterion_of_another_task_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="snd cannot judge regression; possible: "):
        LabelFreeChoice("regression", ["snd"])
    with pytest.raises(ConfigurationError, match="no criterion is defined for detection"):
        LabelFreeChoice("detection")
