"""Do targets fit the loss and the head? Asked of every batch before anything is computed from it."""

from __future__ import annotations

from torch import Tensor

from ..errors import LabelMismatchError
from .losses import Loss


def check_targets(loss: Loss, targets: Tensor, indices: Tensor, num_outputs: int) -> None:
    """Raise LabelMismatchError, saying what to do, for targets that the loss cannot compare with the outputs.

    multi_class: (n,) class numbers, or (n, outputs) shares that are not one-hot. multi_label: (n, outputs) in [0, 1].
    regression: (n, outputs) values. (n,) stands for (n, 1) in the latter two. indices: (n,) places in the dataset.
    """
    if loss.task == "multi_class":
        _check_classes(loss, targets, indices, num_outputs)
        return
    width = 1 if targets.ndim == 1 else targets[0].numel()
    if width != num_outputs:
        words = "labels" if loss.task == "multi_label" else "values"
        raise LabelMismatchError(
            f"the targets hold {width} {words} per sample, shape {tuple(targets.shape)}, but the head has "
            f"{num_outputs} outputs; num_classes must be the number of {words} per sample."
        )
    if loss.task == "multi_label" and bool(((targets < 0) | (targets > 1)).any()):
        raise LabelMismatchError(
            f"loss={loss.name!r} needs 0 or 1 for every label of a sample, but targets go from {targets.min().item()} "
            f"to {targets.max().item()}; for one class per sample use loss='cross_entropy'."
        )


def _check_classes(loss: Loss, targets: Tensor, indices: Tensor, num_outputs: int) -> None:
    if targets.ndim != 1:
        _check_shares(loss, targets, num_outputs)
        return
    if targets.is_floating_point():
        raise LabelMismatchError(
            f"loss={loss.name!r} needs class numbers, but targets are {targets.dtype}; for values to be "
            "predicted use loss='mse', for several labels per sample loss='binary_cross_entropy'."
        )
    wrong = (targets < 0) | (targets >= num_outputs)
    if wrong.any():
        place = int(indices[wrong.nonzero()[0]])
        raise LabelMismatchError(
            f"sample {place} has class number {int(targets[wrong][0])}, but the head has {num_outputs} outputs, "
            f"0 to {num_outputs - 1}; num_classes must be the number of classes, and class numbers begin with 0."
        )


def _check_shares(loss: Loss, targets: Tensor, num_outputs: int) -> None:
    shape = tuple(targets.shape)
    if targets[0].numel() == 1:
        raise LabelMismatchError(
            f"loss={loss.name!r} needs class numbers (n,), but targets have shape {shape}; give y.ravel()."
        )
    sums_to_one = bool(((targets.double().sum(-1) - 1).abs() < 1e-3).all()) and bool((targets >= 0).all())
    if sums_to_one and bool(((targets == 0) | (targets == 1)).all()):
        raise LabelMismatchError(
            f"the targets are one-hot, shape {shape}; give class numbers: y.argmax(1). Where a sample may have "
            "several labels use loss='binary_cross_entropy'."
        )
    if shape[1:] != (num_outputs,) or not sums_to_one:
        raise LabelMismatchError(
            f"loss={loss.name!r} needs one class number per sample, but targets have shape {shape}; where a sample "
            "may have several labels use loss='binary_cross_entropy', for values to be predicted loss='mse'."
        )
