"""Metrics of classification, over classes (multi_class) or over yes-or-no labels (multi_label, binary).

Averages over classes give each class that occurs the same weight ("macro") unless the name says otherwise.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import ConfigurationError, NeurenixWarning
from ._metric import CLASSIFICATION, METRICS, MULTI_CLASS, MULTI_LABEL, ORDINAL, TOKENS, Metric, metric
from ._task import TaskKind

if TYPE_CHECKING:
    import torchmetrics


@metric("accuracy", "acc", tasks=CLASSIFICATION + TOKENS + ORDINAL)
def accuracy(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Share of right decisions: of samples (multi_class), of single yes-or-no answers (multi_label), of tokens."""
    from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy

    if task == "ordinal":
        from ._accumulators import WholeSample

        return WholeSample(share_of_equal)
    if task == "multi_label":
        return BinaryAccuracy(validate_args=False)
    return MulticlassAccuracy(num_outputs, average="micro", validate_args=False)


@metric("balanced_accuracy", tasks=CLASSIFICATION)
def balanced_accuracy(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Mean over classes of the share of their samples that is recognised; for labels, of yes and no alike."""
    from torchmetrics.classification import MulticlassStatScores, MultilabelStatScores

    from ._accumulators import FromCounts

    if task == "multi_class":
        return FromCounts(MulticlassStatScores(num_outputs, average=None, validate_args=False), mean_recall)
    return FromCounts(MultilabelStatScores(num_outputs, average=None, validate_args=False), mean_recall_of_both)


@metric("f1_score", "f1", "f1_macro", tasks=CLASSIFICATION + TOKENS)
def f1_score(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Harmonic mean of precision and recall, mean over classes."""
    return _averaged("F1Score", "macro", task, num_outputs)


@metric("f1_micro", tasks=CLASSIFICATION + TOKENS)
def f1_micro(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Harmonic mean of precision and recall over all decisions together."""
    return _averaged("F1Score", "micro", task, num_outputs)


@metric("f1_weighted", tasks=CLASSIFICATION + TOKENS)
def f1_weighted(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Harmonic mean of precision and recall, mean over classes weighted by their samples."""
    return _averaged("F1Score", "weighted", task, num_outputs)


@metric("precision", tasks=CLASSIFICATION + TOKENS)
def precision(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Share of the samples called k that are k, mean over classes."""
    return _averaged("Precision", "macro", task, num_outputs)


@metric("recall", "sensitivity", tasks=CLASSIFICATION + TOKENS)
def recall(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Share of the samples of class k that are called k, mean over classes."""
    return _averaged("Recall", "macro", task, num_outputs)


@metric("specificity", tasks=CLASSIFICATION)
def specificity(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Share of the samples not of class k that are not called k, mean over classes."""
    return _averaged("Specificity", "macro", task, num_outputs)


@metric("auroc", "auc", "roc_auc", tasks=CLASSIFICATION)
def auroc(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Area under the ROC curve of each class against the rest, mean over the classes that have both."""
    from ._accumulators import WholeSample

    return WholeSample(mean_auroc)


@metric("average_precision", "map", tasks=CLASSIFICATION)
def average_precision(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Average precision of each class against the rest, mean over the classes that occur."""
    from ._accumulators import WholeSample

    return WholeSample(mean_average_precision)


@metric("ece", "calibration_error", "expected_calibration_error", tasks=CLASSIFICATION, higher_is_better=False)
def ece(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Gap between confidence and accuracy in 15 bins of confidence. Guo et al., ICML 2017, eq. 3."""
    from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

    if task == "multi_label":
        return BinaryCalibrationError(n_bins=15, norm="l1", validate_args=False)
    return MulticlassCalibrationError(num_outputs, n_bins=15, norm="l1", validate_args=False)


@metric(
    "confusion_matrix",
    tasks=CLASSIFICATION,
    higher_is_better=None,
    range=(0.0, float("inf")),
)
def confusion_matrix(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Counts, row = truth, column = prediction: (c, c); for labels one (2, 2) each: (l, 2, 2)."""
    from torchmetrics.classification import MulticlassConfusionMatrix, MultilabelConfusionMatrix

    if task == "multi_label":
        return MultilabelConfusionMatrix(num_outputs, validate_args=False)
    return MulticlassConfusionMatrix(num_outputs, validate_args=False)


@metric("matthews", "mcc", "matthews_corrcoef", tasks=CLASSIFICATION, range=(-1.0, 1.0))
def matthews(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Correlation of truth and prediction; over all labels together for multi_label."""
    from torchmetrics.classification import BinaryMatthewsCorrCoef, MulticlassMatthewsCorrCoef

    if task == "multi_label":
        return BinaryMatthewsCorrCoef(validate_args=False)
    return MulticlassMatthewsCorrCoef(num_outputs, validate_args=False)


@metric("cohen_kappa", "kappa", tasks=CLASSIFICATION, range=(-1.0, 1.0))
def cohen_kappa(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Agreement beyond chance; over all labels together for multi_label."""
    from torchmetrics.classification import BinaryCohenKappa, MulticlassCohenKappa

    if task == "multi_label":
        return BinaryCohenKappa(validate_args=False)
    return MulticlassCohenKappa(num_outputs, validate_args=False)


@metric("log_loss", "nll", tasks=CLASSIFICATION, higher_is_better=False, range=(0.0, float("inf")))
def log_loss(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Mean negative log probability of the truth, in nats; for labels the mean over labels too."""
    from ._accumulators import SampleMean

    return SampleMean(log_losses if task == "multi_class" else binary_log_losses)


@metric("hamming", "hamming_distance", "hamming_loss", tasks=MULTI_LABEL, higher_is_better=False)
def hamming(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Share of wrong yes-or-no answers."""
    from torchmetrics.classification import BinaryHammingDistance

    return BinaryHammingDistance(validate_args=False)


@metric("exact_match", "subset_accuracy", tasks=MULTI_LABEL)
def exact_match(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Share of samples with every label right."""
    from torchmetrics.classification import MultilabelExactMatch

    return MultilabelExactMatch(num_outputs, validate_args=False)


def top_k_accuracy(name: str) -> Metric | None:
    """The metric of a name like `top3_accuracy`; None for any other kind of name."""
    found = re.fullmatch(r"top[-_ ]?(\d+)[-_ ]?accuracy", name, re.IGNORECASE)
    if found is None:
        return None
    if int(found[1]) < 1:
        raise ConfigurationError(f"{name!r}: k must be at least 1.")
    return _top_k(int(found[1]))


def share_of_equal(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of samples whose decided grade is the right one. (n, 1), (n, 1) -> ()."""
    return (outputs == targets).to(outputs.dtype).mean()


def mean_recall(positive: Tensor, false_negative: Tensor, negative: Tensor, false_positive: Tensor) -> Tensor:
    """Mean over the classes that occur of tp / (tp + fn). Counts (c,) -> ()."""
    return (positive / (positive + false_negative)).nanmean()


def mean_recall_of_both(positive: Tensor, false_negative: Tensor, negative: Tensor, false_positive: Tensor) -> Tensor:
    """Mean over labels of the mean of the recalls of yes and of no, where they occur. Counts (l,) -> ()."""
    yes, no = positive / (positive + false_negative), negative / (negative + false_positive)
    return torch.stack([yes, no]).nanmean(0).nanmean()


def mean_auroc(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Mean area under the one-versus-rest ROC curves, over classes with positive and negative samples.

    probabilities: (n, c)   targets: (n,) class numbers or (n, c) of 0 and 1   returns: ()
    """
    from torchmetrics.functional.classification import binary_auroc

    truth = _one_hot(probabilities, targets)
    defined = truth.any(0) & ~truth.all(0)
    _warn_left_out("auroc", "both positive and negative samples", defined)
    columns = defined.nonzero().flatten().tolist()
    scores = [binary_auroc(probabilities[:, k], truth[:, k].long(), validate_args=False) for k in columns]
    return torch.stack(scores).mean() if scores else probabilities.new_tensor(float("nan"))


def mean_average_precision(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Mean one-versus-rest average precision, over classes with positive samples.

    probabilities: (n, c)   targets: (n,) class numbers or (n, c) of 0 and 1   returns: ()
    """
    from torchmetrics.functional.classification import binary_average_precision

    truth = _one_hot(probabilities, targets)
    defined = truth.any(0)
    _warn_left_out("average_precision", "positive samples", defined)
    columns = defined.nonzero().flatten().tolist()
    scores = [binary_average_precision(probabilities[:, k], truth[:, k].long(), validate_args=False) for k in columns]
    return torch.stack(scores).mean() if scores else probabilities.new_tensor(float("nan"))


def log_losses(probabilities: Tensor, targets: Tensor) -> Tensor:
    """-log p(truth), with p at or above float32's resolution, as in scikit-learn. (n, c), (n,) -> (n,)."""
    chosen = probabilities.gather(1, targets.unsqueeze(1)).squeeze(1)
    return -chosen.clamp(min=torch.finfo(torch.float32).eps).log()


def binary_log_losses(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Mean over labels of -log p(truth). (n, l), (n, l) -> (n,)."""
    truth = torch.where(targets.bool(), probabilities, 1 - probabilities)
    return -truth.clamp(min=torch.finfo(torch.float32).eps).log().mean(1)


def _averaged(kind: str, average: str, task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    from torchmetrics import classification

    family = "Multiclass" if task == "multi_class" else "Multilabel"
    built: torchmetrics.Metric = getattr(classification, family + kind)(
        num_outputs, average=average, validate_args=False
    )
    return built


def _top_k(k: int) -> Metric:
    description = f"Share of samples whose class is among the {k} most probable; 1 with {k} classes or fewer."

    def build(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
        from torchmetrics.classification import MulticlassAccuracy

        if k >= num_outputs:
            warnings.warn(
                f"top{k}_accuracy is 1.0 whatever the model says: there are only {num_outputs} classes; "
                "ask for a smaller k.",
                NeurenixWarning,
                stacklevel=4,
            )
        return MulticlassAccuracy(num_outputs, top_k=min(k, num_outputs), average="micro", validate_args=False)

    return Metric(f"top{k}_accuracy", MULTI_CLASS, True, (0.0, 1.0), description, build)


def _one_hot(probabilities: Tensor, targets: Tensor) -> Tensor:
    """(n, c) bool from class numbers (n,) or from 0 and 1 (n, c)."""
    if targets.ndim == 2:
        return targets.bool()
    return targets.unsqueeze(1) == torch.arange(probabilities.shape[1], device=targets.device)


def _warn_left_out(name: str, needs: str, defined: Tensor) -> None:
    missing = (~defined).nonzero().flatten().tolist()
    if missing and len(missing) < len(defined):
        warnings.warn(
            f"{name} is the mean over {len(defined) - len(missing)} of {len(defined)} classes; it needs "
            f"{needs}, which class {', '.join(map(str, missing[:8]))} does not have here.",
            NeurenixWarning,
            stacklevel=2,
        )


METRICS.add("top5_accuracy", _top_k(5))
