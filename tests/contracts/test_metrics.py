"""Every metric, for every task it has, against scikit-learn or a formula, and the laws that all obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as reference
import torch
import torchmetrics
from numpy.typing import NDArray
from torch import Tensor

from neurenix.errors import (
    ConfigurationError,
    EmptyDatasetError,
    LabelMismatchError,
    NeurenixWarning,
    UnknownNameError,
)
from neurenix.metrics import DENSE, METRICS, MetricSet, TaskKind, build_metrics, find_metric, higher_is_better

CLASSES, LABELS, VALUES, SAMPLES = 6, 4, 3, 211

# One row per (task, number of outputs) that a head can have.
SETTINGS: list[tuple[TaskKind, int]] = [
    ("multi_class", CLASSES),
    ("multi_class", 2),
    ("multi_label", LABELS),
    ("multi_label", 1),
    ("regression", VALUES),
    ("regression", 1),
]
CASES = [
    pytest.param(name, task, outputs, id=f"{name}-{task}-{outputs}")
    for name, metric in METRICS.items()
    for task, outputs in SETTINGS
    if task in metric.tasks and not (name == "top5_accuracy" and outputs <= 5)
]


def random_sample(task: TaskKind, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Outputs that know something about the targets, so that scores are neither 0 nor 1."""
    if task == "multi_class":
        targets = torch.randint(outputs, (SAMPLES,), generator=generator)
        return torch.randn(SAMPLES, outputs, generator=generator) + 1.2 * torch.eye(outputs)[targets], targets
    noise = torch.randn(SAMPLES, outputs, generator=generator)
    if task == "multi_label":
        targets = torch.randint(2, (SAMPLES, outputs), generator=generator)
        return noise + 1.5 * targets - 0.7, targets
    targets = 3 * torch.randn(SAMPLES, outputs, generator=generator) + 10
    return targets + noise + 0.4, targets


def perfect_sample(task: TaskKind, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    _, targets = random_sample(task, outputs, generator)
    if task == "multi_class":
        return 100 * torch.eye(outputs)[targets], targets
    return (200.0 * targets - 100, targets) if task == "multi_label" else (targets.clone(), targets)


def value_of(name: str, task: TaskKind, outputs: Tensor, targets: Tensor) -> float | list:
    metrics = build_metrics([name], task, outputs.shape[1])
    metrics.update(outputs, targets)
    return metrics.compute()[name]


def specificity(truth: NDArray, decision: NDArray) -> float:
    counts = reference.multilabel_confusion_matrix(truth, decision)
    return float(np.mean(counts[:, 0, 0] / (counts[:, 0, 0] + counts[:, 0, 1])))


def calibration_error(confidence: NDArray, right: NDArray) -> float:
    """Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3, with 15 bins."""
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs((right - confidence)[bins == b].sum()) for b in range(15)]
    return float(np.sum(gaps) / len(confidence))


MULTI_CLASS = {
    "accuracy": lambda t, d, p: reference.accuracy_score(t, d),
    "balanced_accuracy": lambda t, d, p: reference.balanced_accuracy_score(t, d),
    "f1_score": lambda t, d, p: reference.f1_score(t, d, average="macro"),
    "f1_micro": lambda t, d, p: reference.f1_score(t, d, average="micro"),
    "f1_weighted": lambda t, d, p: reference.f1_score(t, d, average="weighted"),
    "precision": lambda t, d, p: reference.precision_score(t, d, average="macro"),
    "recall": lambda t, d, p: reference.recall_score(t, d, average="macro"),
    "specificity": lambda t, d, p: specificity(t, d),
    "auroc": lambda t, d, p: reference.roc_auc_score(np.eye(p.shape[1])[t], p, average="macro"),
    "average_precision": lambda t, d, p: reference.average_precision_score(np.eye(p.shape[1])[t], p),
    "ece": lambda t, d, p: calibration_error(p.max(1), t == d),
    "confusion_matrix": lambda t, d, p: reference.confusion_matrix(t, d).tolist(),
    "matthews": lambda t, d, p: reference.matthews_corrcoef(t, d),
    "cohen_kappa": lambda t, d, p: reference.cohen_kappa_score(t, d),
    "log_loss": lambda t, d, p: reference.log_loss(t, p, labels=list(range(p.shape[1]))),
    "top5_accuracy": lambda t, d, p: reference.top_k_accuracy_score(t, p, k=5, labels=list(range(p.shape[1]))),
}
MULTI_LABEL = {
    "accuracy": lambda t, d, p: 1 - reference.hamming_loss(t, d),
    "balanced_accuracy": lambda t, d, p: np.mean(
        [reference.balanced_accuracy_score(a, b) for a, b in zip(t.T, d.T, strict=True)]
    ),
    "f1_score": lambda t, d, p: np.mean([reference.f1_score(a, b) for a, b in zip(t.T, d.T, strict=True)]),
    "f1_micro": lambda t, d, p: reference.f1_score(t.ravel(), d.ravel()),
    "f1_weighted": lambda t, d, p: np.average(
        [reference.f1_score(a, b) for a, b in zip(t.T, d.T, strict=True)], weights=t.sum(0)
    ),
    "precision": lambda t, d, p: np.mean([reference.precision_score(a, b) for a, b in zip(t.T, d.T, strict=True)]),
    "recall": lambda t, d, p: np.mean([reference.recall_score(a, b) for a, b in zip(t.T, d.T, strict=True)]),
    "specificity": lambda t, d, p: np.mean(
        [reference.recall_score(1 - a, 1 - b) for a, b in zip(t.T, d.T, strict=True)]
    ),
    "auroc": lambda t, d, p: reference.roc_auc_score(t, p, average="macro"),
    "average_precision": lambda t, d, p: reference.average_precision_score(t, p, average="macro"),
    "ece": lambda t, d, p: calibration_error(p.ravel(), t.ravel()),
    "confusion_matrix": lambda t, d, p: [
        reference.confusion_matrix(a, b).tolist() for a, b in zip(t.T, d.T, strict=True)
    ],
    "matthews": lambda t, d, p: reference.matthews_corrcoef(t.ravel(), d.ravel()),
    "cohen_kappa": lambda t, d, p: reference.cohen_kappa_score(t.ravel(), d.ravel()),
    "log_loss": lambda t, d, p: np.mean([reference.log_loss(a, b) for a, b in zip(t.T, p.T, strict=True)]),
    "hamming": lambda t, d, p: reference.hamming_loss(t, d),
    "exact_match": lambda t, d, p: np.mean((t == d).all(1)),
}
REGRESSION = {
    "mse": reference.mean_squared_error,
    "rmse": reference.root_mean_squared_error,
    "mae": reference.mean_absolute_error,
    "r2": reference.r2_score,
    "explained_variance": reference.explained_variance_score,
    "pearson": lambda t, p: np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(t.T, p.T, strict=True)]),
    "spearman": lambda t, p: np.mean(
        [np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1] for a, b in zip(t.T, p.T, strict=True)]
    ),
}


def expected(name: str, task: TaskKind, outputs: Tensor, targets: Tensor) -> float | list:
    truth = targets.numpy()
    if task == "regression":
        return REGRESSION[name](truth.astype(float), outputs.double().numpy())
    if task == "multi_class":
        probabilities = outputs.double().softmax(1).numpy()
        return MULTI_CLASS[name](truth, probabilities.argmax(1), probabilities)
    probabilities = outputs.double().sigmoid().numpy()
    return MULTI_LABEL[name](truth, (probabilities > 0.5).astype(int), probabilities)


@pytest.mark.parametrize(("name", "task", "outputs"), CASES)
def test_equals_the_reference(name: str, task: TaskKind, outputs: int, generator: torch.Generator) -> None:
    sample = random_sample(task, outputs, generator)
    np.testing.assert_allclose(value_of(name, task, *sample), expected(name, task, *sample), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "task", "outputs"), CASES)
def test_two_batches_are_one(name: str, task: TaskKind, outputs: int, generator: torch.Generator) -> None:
    scores, targets = random_sample(task, outputs, generator)
    metrics = build_metrics([name], task, outputs)
    metrics.update(scores[:70], targets[:70])
    metrics.compute()  # hands the first batch to torchmetrics; the second one comes as an update of its own
    metrics.update(scores[70:], targets[70:])
    np.testing.assert_allclose(metrics.compute()[name], value_of(name, task, scores, targets), rtol=1e-6)


@pytest.mark.parametrize(("name", "task", "outputs"), CASES)
def test_reset_forgets(name: str, task: TaskKind, outputs: int, generator: torch.Generator) -> None:
    first, second = (random_sample(task, outputs, generator) for _ in range(2))
    metrics = build_metrics([name], task, outputs)
    metrics.update(*first)
    metrics.compute()
    metrics.reset()
    metrics.update(*second)
    assert metrics.compute()[name] == value_of(name, task, *second)


@pytest.mark.parametrize(("name", "task", "outputs"), CASES)
def test_range_and_direction(name: str, task: TaskKind, outputs: int, generator: torch.Generator) -> None:
    """Perfect predictions give the best end of the declared range, random ones something worse inside it."""
    low, high = METRICS[name].range
    better = METRICS[name].higher_is_better
    perfect = value_of(name, task, *perfect_sample(task, outputs, generator))
    ordinary = value_of(name, task, *random_sample(task, outputs, generator))
    if better is None:
        assert isinstance(ordinary, list)
        return
    assert perfect == pytest.approx(high if better else low, abs=1e-6)
    assert low <= ordinary <= high
    assert (ordinary < perfect) if better else (ordinary > perfect)


@pytest.mark.parametrize("name", METRICS)
def test_has_a_description(name: str) -> None:
    assert METRICS[name].description.endswith(".")
    assert METRICS[name].name == name


def test_every_metric_has_a_reference() -> None:
    pooled = {name for name, metric in METRICS.items() if not set(metric.tasks) & set(DENSE)}
    assert {
        *MULTI_CLASS,
        *MULTI_LABEL,
        *REGRESSION,
        "entity_f1",
    } == pooled  # of it: test_entities.py; of dense ones: test_dense_metrics.py


@pytest.mark.parametrize(
    ("targets", "scores", "rho"),
    [
        ([106, 100, 86, 101, 99, 103, 97, 113, 112, 110], [7, 27, 2, 50, 28, 29, 20, 12, 6, 17], -29 / 165),
        ([1, 2, 2, 3], [1, 2, 3, 3], 5 / 6),
    ],
)
def test_spearman_published(targets: list[float], scores: list[float], rho: float) -> None:
    """The textbook example of IQ and hours of television; ranks 1, 2.5, 2.5, 4 and 1, 2, 3.5, 3.5 by hand."""
    got = value_of("spearman", "regression", torch.tensor([scores]).T.float(), torch.tensor([targets]).T.float())
    assert got == pytest.approx(rho)


@pytest.mark.parametrize("offset", [0.0, 1e5])
@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_r2_keeps_its_digits(offset: float, unit: float, generator: torch.Generator) -> None:
    """Neither a small unit nor a mean far from zero changes the answer, as they do with running sums."""
    targets = torch.randn(500, 1, generator=generator, dtype=torch.float64) * unit + offset * unit
    noise = torch.randn(500, 1, generator=generator, dtype=torch.float64) * unit
    outputs = (targets + noise).float()
    assert value_of("r2", "regression", outputs, targets) == pytest.approx(
        reference.r2_score(targets.numpy(), outputs.double().numpy()), abs=1e-9
    )


def test_balanced_accuracy_ignores_a_class_that_never_occurs() -> None:
    outputs = 9 * torch.eye(3)[[0, 0, 1, 2]]
    assert value_of("balanced_accuracy", "multi_class", outputs, torch.tensor([0, 0, 1, 1])) == pytest.approx(0.75)


def test_top_k_exists_for_every_k(generator: torch.Generator) -> None:
    outputs, targets = random_sample("multi_class", CLASSES, generator)
    for k in range(1, CLASSES):
        wanted = reference.top_k_accuracy_score(targets.numpy(), outputs.numpy(), k=k, labels=list(range(CLASSES)))
        assert value_of(f"top{k}_accuracy", "multi_class", outputs, targets) == pytest.approx(wanted)
    assert find_metric("Top-3 accuracy").name == "top3_accuracy"
    with pytest.raises(ConfigurationError, match="at least 1"):
        find_metric("top0_accuracy")


def test_top_k_with_too_few_classes_says_so() -> None:
    with pytest.warns(NeurenixWarning, match="only 3 classes"):
        metrics = build_metrics(["top5_accuracy"], "multi_class", 3)
    metrics.update(torch.eye(3), torch.tensor([2, 1, 0]))
    assert metrics.compute() == {"top5_accuracy": 1.0}


def test_names_are_tolerant_and_reported_as_written(generator: torch.Generator) -> None:
    metrics = build_metrics(["F1-Score", "acc", "acc"], "multi_class", CLASSES)
    metrics.update(*random_sample("multi_class", CLASSES, generator))
    assert list(metrics.compute()) == ["F1-Score", "acc"] == list(metrics.names)
    assert higher_is_better("mean squared error") is False


def test_wrong_names() -> None:
    with pytest.raises(UnknownNameError, match="closest: accuracy"):
        build_metrics(["acuracy"], "multi_class", 3)
    with pytest.raises(UnknownNameError):
        find_metric(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="not defined for multi_class; defined: accuracy.*log_loss"):
        build_metrics(["r2"], "multi_class", 3)
    with pytest.raises(ConfigurationError, match=r"must be a list: \['accuracy'\]"):
        build_metrics("accuracy", "multi_class", 3)
    with pytest.raises(ConfigurationError, match="possible are names"):
        build_metrics([len], "multi_class", 3)  # type: ignore[list-item]


def test_wrong_tasks() -> None:
    with pytest.raises(ConfigurationError, match="possible: multi_class, multi_label, regression"):
        build_metrics([], "binary", 1)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="at least 2 outputs, not 1"):
        build_metrics([], "multi_class", 1)


@pytest.mark.parametrize(
    ("task", "outputs", "targets"),
    [
        ("multi_class", torch.zeros(4, 3), torch.zeros(5, dtype=torch.long)),
        ("multi_class", torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)),
        ("multi_class", torch.zeros(4, 3), torch.zeros(4)),
        ("multi_class", torch.zeros(4, 3), torch.zeros(4, 3)),
        ("multi_label", torch.zeros(4, 3), torch.zeros(4)),
        ("regression", torch.zeros(4, 3), torch.zeros(4, 1)),
    ],
)
def test_wrong_shapes(task: TaskKind, outputs: Tensor, targets: Tensor) -> None:
    with pytest.raises(LabelMismatchError):
        build_metrics([next(n for n, m in METRICS.items() if task in m.tasks)], task, 3).update(outputs, targets)


@pytest.mark.parametrize(
    ("task", "targets"),
    [("multi_class", torch.tensor([0, 3])), ("multi_label", torch.tensor([[0, 1, -1]] * 2))],
)
def test_labels_out_of_range(task: TaskKind, targets: Tensor) -> None:
    metrics = build_metrics(["confusion_matrix"], task, 3)
    metrics.update(torch.zeros(2, 3), targets)
    with pytest.raises(LabelMismatchError, match=r"found (3|-1)\."):
        metrics.compute()


def test_nothing_to_measure() -> None:
    metrics = build_metrics(["accuracy"], "multi_class", 3)
    metrics.update(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    with pytest.raises(EmptyDatasetError):
        metrics.compute()
    assert build_metrics([], "multi_class", 3).compute() == {}


@pytest.mark.parametrize(
    ("name", "task", "outputs", "targets"),
    [
        ("auroc", "multi_class", torch.eye(2), torch.tensor([1, 1])),
        ("auroc", "multi_label", torch.tensor([0.1, 0.2]), torch.tensor([0, 0])),
        ("average_precision", "multi_label", torch.tensor([0.1, 0.2]), torch.tensor([0, 0])),
        ("cohen_kappa", "multi_class", torch.eye(2)[[0, 0]], torch.tensor([0, 0])),
        ("r2", "regression", torch.tensor([1.0, 2.0]), torch.tensor([0.1, 0.1])),
        ("r2", "regression", torch.tensor([1.0]), torch.tensor([2.0])),
        ("pearson", "regression", torch.tensor([3.3, 3.3, 3.3]), torch.tensor([1.0, 2.0, 3.0])),
        ("spearman", "regression", torch.tensor([1.0, 2.0]), torch.tensor([5.0, 5.0])),
    ],
)
def test_undefined_is_nan_with_one_warning(name: str, task: TaskKind, outputs: Tensor, targets: Tensor) -> None:
    metrics = build_metrics([name], task, outputs.shape[1] if outputs.ndim == 2 else 1)
    metrics.update(outputs, targets)
    with pytest.warns(NeurenixWarning, match=f"{name} is NaN: undefined") as caught:
        assert math.isnan(metrics.compute()[name])
    assert len(caught) == 1


def test_a_class_without_samples_is_left_out_and_named() -> None:
    """scikit-learn over the two classes that occur gives the same mean."""
    outputs, targets = torch.eye(3)[[0, 1, 1, 0]], torch.tensor([0, 1, 0, 1])
    metrics = build_metrics(["auroc"], "multi_class", 3)
    metrics.update(outputs, targets)
    with pytest.warns(NeurenixWarning, match="mean over 2 of 3 classes.*class 2 does not have"):
        assert metrics.compute()["auroc"] == pytest.approx(0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_outputs_are_not_scored(bad: float) -> None:
    metrics = build_metrics(["accuracy", "log_loss"], "multi_class", 2)
    metrics.update(torch.tensor([[5.0, 0.0], [bad, 0.0]]), torch.tensor([0, 0]))
    with pytest.warns(NeurenixWarning, match="1 of 2 outputs are NaN or infinite"):
        assert all(math.isnan(value) for value in metrics.compute().values())


def test_outputs_that_are_all_broken() -> None:
    metrics = build_metrics(["auroc", "confusion_matrix"], "multi_class", 2)
    metrics.update(torch.full((3, 2), math.nan), torch.tensor([0, 1, 0]))
    with pytest.warns(NeurenixWarning, match="3 of 3 outputs") as caught:
        assert all(math.isnan(value) for value in metrics.compute().values())
    assert len(caught) == 1


def test_a_torchmetrics_instance_is_copied_and_keyed_by_its_class() -> None:
    mine = torchmetrics.classification.MulticlassJaccardIndex(3)
    metrics = build_metrics([mine, "accuracy"], "multi_class", 3)
    metrics.update(9 * torch.eye(3), torch.tensor([0, 1, 1]))
    # by hand: class 0 is 1/1, class 1 is 1/2, class 2 is 0/1
    assert metrics.compute() == pytest.approx({"MulticlassJaccardIndex": 0.5, "accuracy": 2 / 3})
    assert not mine.update_called
    with pytest.raises(ConfigurationError, match="reported as 'MulticlassJaccardIndex'"):
        build_metrics([mine, torchmetrics.classification.MulticlassJaccardIndex(3)], "multi_class", 3)


def test_a_metric_of_several_tensors_is_refused() -> None:
    metrics = build_metrics([torchmetrics.classification.MulticlassROC(3)], "multi_class", 3)
    metrics.update(torch.eye(3), torch.tensor([0, 1, 2]))
    with pytest.raises(ConfigurationError, match="MulticlassROC computes a tuple"):
        metrics.compute()


def test_low_precision_logits_are_scored_in_float32(generator: torch.Generator) -> None:
    logits = torch.randn(64, 5, generator=generator).bfloat16()
    targets = torch.randint(5, (64,), generator=generator)
    wanted = torch.nn.functional.cross_entropy(logits.float(), targets)
    assert value_of("log_loss", "multi_class", logits, targets) == pytest.approx(float(wanted), rel=1e-6)


def test_large_batches_do_not_pile_up(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    outputs, targets = random_sample("multi_class", CLASSES, generator)
    at_once = value_of("f1_score", "multi_class", outputs, targets)
    monkeypatch.setattr("neurenix.metrics._metric_set._PENDING", 100)
    metrics = build_metrics(["f1_score"], "multi_class", CLASSES)
    for rows in torch.arange(SAMPLES).split(10):
        metrics.update(outputs[rows], targets[rows])
        assert metrics._pending_size < 100
    assert metrics.compute()["f1_score"] == pytest.approx(at_once)


def test_outputs_may_be_overwritten_after_an_update() -> None:
    """As compiled models do, which return the same memory for every batch."""
    outputs, targets = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])
    metrics = build_metrics(["mae"], "regression", 1)
    metrics.update(outputs, targets)
    outputs.zero_()
    targets.zero_()
    assert metrics.compute() == {"mae": 0.5}


def test_many_classes_under_deterministic_algorithms() -> None:
    """torchmetrics' own way of counting would need 200 x 1000² numbers here."""
    torch.use_deterministic_algorithms(True)
    try:
        metrics = build_metrics(["f1_score", "confusion_matrix"], "multi_class", 1000)
        metrics.update(torch.eye(1000)[:200], torch.arange(200))
        assert metrics.compute()["f1_score"] == 1.0
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_moves_between_devices() -> None:
    metrics = build_metrics(["balanced_accuracy", "accuracy"], "multi_class", 3)
    assert isinstance(metrics.to(torch.device("meta")), MetricSet)
    states = [metrics._metrics["balanced_accuracy"].counts.tp, metrics._metrics["accuracy"].tp]
    assert {state.device.type for state in states} == {"meta"}
    regression = build_metrics(["r2"], "regression", 1).to(torch.device("meta"))
    regression.update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]))
    assert regression.compute() == {"r2": 1.0}
