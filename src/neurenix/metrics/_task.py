"""The kinds of question that a head answers, and what each makes of outputs and targets."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import ConfigurationError, LabelMismatchError

TaskKind = Literal[
    "multi_class",
    "multi_label",
    "regression",
    "detection",
    "segmentation",
    "transcription",
    "generation",
    "translation",
    "ordinal",
    "token_tagging",
    "span_answering",
]
# asked of a sample, or of a token, as a whole
POOLED: tuple[TaskKind, ...] = ("multi_class", "multi_label", "regression", "ordinal", "token_tagging")
DENSE: tuple[TaskKind, ...] = tuple(task for task in get_args(TaskKind) if task not in POOLED)
IGNORED = 255  # in a mask: a pixel without a class, as in Pascal VOC
_CLASSES: tuple[TaskKind, ...] = ("multi_class", "ordinal", "token_tagging")


def check_task(task: TaskKind, num_outputs: int) -> None:
    """Raise ConfigurationError for an unknown task, or for a number of outputs that the task cannot have.

    A binary question is multi_class with 2 outputs or multi_label with 1.
    """
    if task not in POOLED:
        raise ConfigurationError(f"task={task!r}; possible: {', '.join(get_args(TaskKind))}.")
    least = 2 if task in _CLASSES else 1
    if num_outputs < least:
        raise ConfigurationError(f"task={task!r} needs at least {least} outputs, not {num_outputs}.")


def prepare(task: TaskKind, num_outputs: int, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and targets as the metrics read them; new tensors, no host synchronisation.

    multi_class: (n, c) logits -> probabilities; (n,) class numbers.
    multi_label: (n, l) logits -> probabilities; (n, l) of 0 and 1.     (n,) is read as (n, 1)
    regression:  (n, k) values -> values; (n, k) values.                (n,) is read as (n, 1)
    ordinal:     (n, 1) decided grades -> the same; (n, 1) grades.      (n,) is read as (n, 1)
    token_tagging: (n, t, c) logits -> as multi_class, of the m tokens that have a class; targets below 0 are none.
    Probabilities are float32 whatever the precision of the logits.
    """
    outputs, targets = outputs.detach(), targets.detach()
    if task == "token_tagging":
        _check_shapes(task, outputs, targets, (*targets.shape[:2], num_outputs), tuple(outputs.shape[:2]))
        return prepare("multi_class", num_outputs, outputs[targets >= 0], targets[targets >= 0].long())
    if task == "multi_class":
        _check_shapes(task, outputs, targets, (len(outputs), num_outputs), (len(outputs),))
        if targets.is_floating_point():
            raise LabelMismatchError(
                f"multi_class targets are class numbers, not {targets.dtype}; of soft ones give argmax(1)."
            )
        return outputs.float().softmax(1), targets.long().clone()
    outputs, targets = _as_columns(outputs), _as_columns(targets)
    num_outputs = 1 if task == "ordinal" else num_outputs
    _check_shapes(task, outputs, targets, (len(outputs), num_outputs), (len(outputs), num_outputs))
    if task == "multi_label":
        return outputs.float().sigmoid(), targets.long().clone()
    return outputs.float().clone(), targets.clone()


def check_labels(task: TaskKind, num_outputs: int, targets: Tensor) -> None:
    """Raise LabelMismatchError for a class number that the head lacks, or a label that is not 0 or 1."""
    if task == "regression":
        return
    highest = num_outputs - 1 if task in _CLASSES else 1
    wrong = targets[(targets < 0) | (targets > highest)]
    if wrong.numel():
        found = ", ".join(str(value) for value in sorted(set(wrong.tolist()))[:5])
        raise LabelMismatchError(
            f"Targets must lie in 0..{highest} for {task} with {num_outputs} outputs; found {found}."
        )


def finite_rows(outputs: Tensor) -> Tensor:
    """(n, …) -> (n,) bool: rows without NaN or infinity."""
    return torch.isfinite(outputs).flatten(1).all(1)


def _as_columns(values: Tensor) -> Tensor:
    return values.unsqueeze(1) if values.ndim == 1 else values


def _check_shapes(
    task: TaskKind,
    outputs: Tensor,
    targets: Tensor,
    wanted_outputs: tuple[int, ...],
    wanted_targets: tuple[int, ...],
) -> None:
    if tuple(outputs.shape) != wanted_outputs or tuple(targets.shape) != wanted_targets:
        raise LabelMismatchError(
            f"{task} metrics need outputs of shape {wanted_outputs} and targets of shape {wanted_targets}; "
            f"they have {tuple(outputs.shape)} and {tuple(targets.shape)}."
        )
