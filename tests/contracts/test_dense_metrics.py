"""Metrics of boxes and pixels against closed forms and transcriptions in plain loops, and what all of them promise."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as reference
import torch
from torch import Tensor

from neurenix.errors import ConfigurationError, EmptyDatasetError, LabelMismatchError, UnknownNameError
from neurenix.metrics import DENSE, METRICS, DenseMetricSet, build_metrics

CLASSES = 4
NAMES = {task: [name for name, metric in METRICS.items() if task in metric.tasks] for task in DENSE}


def test_every_dense_metric_is_looked_at_here() -> None:
    assert NAMES["detection"] == ["mean_average_precision", "mean_average_precision_50", "mean_average_recall"]
    assert NAMES["segmentation"] == ["mean_iou", "pixel_accuracy"]


# --- boxes -----------------------------------------------------------------------------------------------------


def truth(boxes: list[list[float]], labels: list[int], padding: int = 0) -> dict[str, Tensor]:
    """One image's targets, with rows of padding behind them."""
    return {
        "boxes": torch.tensor([boxes + [[0.0] * 4] * padding]),
        "labels": torch.tensor([labels + [-1] * padding]),
    }


def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> list[dict[str, Tensor]]:
    return [{"boxes": torch.tensor(boxes), "scores": torch.tensor(scores), "labels": torch.tensor(labels)}]


@pytest.mark.parametrize(("width", "expected"), [(100.0, 1.0), (62.0, 0.3), (77.0, 0.6), (40.0, 0.0)])
def test_one_box_counts_at_the_thresholds_that_it_reaches(width: float, expected: float) -> None:
    """A box of the right height and `width` of 100 has an IoU of width/100; COCO's thresholds are .50, .55, …, .95."""
    metrics = build_metrics(["mean_average_precision"], "detection", CLASSES)
    metrics.update(found([[0, 0, width, 50]], [0.9], [2]), truth([[0, 0, 100, 50]], [2], padding=3))
    assert metrics.compute()["mean_average_precision"] == pytest.approx(expected)


def random_scene(generator: np.random.Generator) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    count = int(generator.integers(1, 6))
    corners = generator.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(15, 40, (count, 2))], 1)
    labels = generator.integers(0, CLASSES, count)
    moved = boxes + generator.normal(0, 4, boxes.shape)
    stray = generator.uniform(0, 50, (2, 2))
    guesses = np.concatenate([moved, np.concatenate([stray, stray + 30], 1)])
    guessed = np.concatenate([labels, generator.integers(0, CLASSES, 2)])
    scores = generator.uniform(0.1, 0.9, len(guesses))  # no two are equal
    return (
        found(guesses.tolist(), scores.tolist(), guessed.tolist()),
        truth(boxes.tolist(), labels.tolist(), padding=6 - count),
    )


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(np.clip(sides, 0, None)))
    return common / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)


def average_precision_50(scenes: list, label: int) -> float | None:
    """Precision at 101 recalls, each the best at that recall or above: Lin et al. 2014 as COCO evaluates it."""
    hits, positives = [], 0
    for answers, targets in scenes:
        real = targets["boxes"][0][targets["labels"][0] == label].numpy()
        positives += len(real)
        taken: set[int] = set()
        chosen = answers[0]["labels"] == label
        order = answers[0]["scores"][chosen].argsort(descending=True)
        for place in order:
            box = answers[0]["boxes"][chosen][place].numpy()
            free = [(overlap(box, other), index) for index, other in enumerate(real) if index not in taken]
            best = max(free, default=(0.0, -1))
            if best[0] >= 0.5:
                taken.add(best[1])
            hits.append((float(answers[0]["scores"][chosen][place]), best[0] >= 0.5))
    if not positives:
        return None
    right = np.cumsum([hit for _, hit in sorted(hits, key=lambda pair: -pair[0])])
    recall, precision = right / positives, right / np.arange(1, len(right) + 1)
    best_from = [precision[recall >= wanted].max(initial=0.0) for wanted in np.linspace(0, 1, 101)]
    return float(np.mean(best_from))


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_equals_its_definition(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scenes = [random_scene(generator) for _ in range(12)]
    metrics = build_metrics(NAMES["detection"], "detection", CLASSES)
    for answers, targets in scenes:
        metrics.update(answers, targets)
    per_class = [value for label in range(CLASSES) if (value := average_precision_50(scenes, label)) is not None]
    values = metrics.compute()
    assert values["mean_average_precision_50"] == pytest.approx(np.mean(per_class), abs=1e-6)
    assert 0 < values["mean_average_precision"] < values["mean_average_precision_50"] < 1
    assert 0 < values["mean_average_recall"] <= 1


# --- pixels ----------------------------------------------------------------------------------------------------


def masks(seed: int) -> tuple[Tensor, Tensor]:
    """Logits that know something of the masks, in which some pixels have no class."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(CLASSES - 1, (3, 10, 12), generator=generator)  # the last class does not occur
    logits = torch.randn(3, CLASSES, 10, 12, generator=generator)
    logits += 1.5 * torch.nn.functional.one_hot(targets, CLASSES).permute(0, 3, 1, 2)
    targets[:, :2] = 255
    return logits, targets


@pytest.mark.parametrize("seed", range(3))
def test_pixels_against_scikit_learn(seed: int) -> None:
    logits, targets = masks(seed)
    metrics = build_metrics(["mean_iou", "pixel_accuracy"], "segmentation", CLASSES)
    for part in range(3):  # images one by one count as one
        metrics.update(logits[part : part + 1], targets[part : part + 1])
    kept = targets.flatten() != 255
    decided, real = logits.argmax(1).flatten()[kept], targets.flatten()[kept]
    values = metrics.compute()
    assert values["mean_iou"] == pytest.approx(reference.jaccard_score(real, decided, average="macro"))
    assert values["pixel_accuracy"] == pytest.approx(reference.accuracy_score(real, decided))


def test_one_channel_is_yes_or_no() -> None:
    metrics = build_metrics(["pixel_accuracy"], "segmentation", 1)
    metrics.update(torch.tensor([[[[2.0, -2.0], [1.0, -1.0]]]]), torch.tensor([[[1, 0], [0, 255]]]))
    assert metrics.compute()["pixel_accuracy"] == pytest.approx(2 / 3)


# --- all -------------------------------------------------------------------------------------------------------


def fed(task: str) -> tuple[DenseMetricSet, list]:
    generator = np.random.default_rng(7)
    batches = [random_scene(generator) if task == "detection" else masks(seed) for seed in range(2)]
    metrics = build_metrics(NAMES[task], task, CLASSES)
    assert isinstance(metrics, DenseMetricSet)
    return metrics, batches


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_counting_goes_on_from_a_state(task: str) -> None:
    metrics, batches = fed(task)
    metrics.update(*batches[0])
    state = metrics.state()
    metrics.update(*batches[1])
    expected = metrics.compute()
    other, _ = fed(task)
    other.load_state(state)
    other.update(*batches[1])
    assert other.compute() == expected
    other.reset()
    with pytest.raises(EmptyDatasetError):
        other.compute()


def test_wrong_names_and_shapes() -> None:
    with pytest.raises(UnknownNameError, match="mean_iou"):
        build_metrics(["mean_ious"], "segmentation", CLASSES)
    with pytest.raises(ConfigurationError, match="mean_average_precision"):
        build_metrics(["mean_iou"], "detection", CLASSES)
    with pytest.raises(ConfigurationError, match="by name"):
        build_metrics([object()], "segmentation", CLASSES)  # type: ignore[list-item]
    metrics = build_metrics(["mean_iou"], "segmentation", CLASSES)
    with pytest.raises(LabelMismatchError, match="one class number for each pixel"):
        metrics.update(torch.zeros(1, CLASSES, 8, 8), torch.zeros(1, 4, 4))
    assert build_metrics([], "transcription", 32).compute() == {}
