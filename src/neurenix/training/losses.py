"""Loss functions by name; each knows the kind of task it is for, so that the task need not be said twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ConfigurationError, LabelMismatchError
from ..metrics import TaskKind
from ..registry import Registry


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """What can be asked of a loss beside its name.

    class_weights: (classes,), relative; None for equal. target_sd: (k,), the unit that values are compared in; None for
    that of the targets.
    """

    label_smoothing: float = 0.0
    class_weights: Tensor | None = None
    target_sd: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A loss and its task. compute: (outputs (n, k) float32, targets, options) -> mean over samples, ()."""

    name: str
    task: TaskKind
    compute: Callable[[Tensor, Tensor, LossOptions], Tensor]
    weighted: bool = False


LOSSES: Registry[Loss] = Registry("loss")


def _register(
    name: str, *aliases: str, task: TaskKind, weighted: bool = False
) -> Callable[[Callable[[Tensor, Tensor, LossOptions], Tensor]], Callable[[Tensor, Tensor, LossOptions], Tensor]]:
    def decorate(
        compute: Callable[[Tensor, Tensor, LossOptions], Tensor],
    ) -> Callable[[Tensor, Tensor, LossOptions], Tensor]:
        LOSSES.add(name, Loss(name=name, task=task, compute=compute, weighted=weighted), *aliases)
        return compute

    return decorate


@_register("cross_entropy", "categorical_crossentropy", task="multi_class", weighted=True)
def cross_entropy(outputs: Tensor, targets: Tensor, options: LossOptions) -> Tensor:
    """-log softmax(outputs)[target]. targets: (n,) class numbers, or (n, k) probabilities (from mixup)."""
    return functional.cross_entropy(
        outputs, targets, weight=options.class_weights, label_smoothing=options.label_smoothing
    )


@_register("focal", "focal_loss", task="multi_class", weighted=True)
def focal(outputs: Tensor, targets: Tensor, options: LossOptions, gamma: float = 2.0) -> Tensor:
    """(1 - p)^gamma · -log p of the target class: easy samples count less.

    Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, eq. 4. targets: (n,) or (n, k) -> ()
    """
    log_probability = outputs.log_softmax(1)
    shares = _as_shares(targets, outputs.shape[1]).to(outputs.dtype)
    shares = shares * (1 - options.label_smoothing) + options.label_smoothing / outputs.shape[1]
    if options.class_weights is not None:
        shares = shares * options.class_weights
    per_sample = -(shares * (1 - log_probability.exp()).pow(gamma) * log_probability).sum(1)
    return per_sample.mean()


@_register("binary_cross_entropy", "bce", task="multi_label", weighted=True)
def binary_cross_entropy(outputs: Tensor, targets: Tensor, options: LossOptions) -> Tensor:
    """Mean over labels of -t log σ(o) - (1-t) log(1-σ(o)); weights are of the positives. targets: (n, k) in [0, 1]."""
    smooth = targets.to(outputs.dtype) * (1 - options.label_smoothing) + options.label_smoothing / 2
    return functional.binary_cross_entropy_with_logits(
        outputs, _shaped_like(smooth, outputs), pos_weight=options.class_weights
    )


@_register("mse", "mean_squared_error", task="regression")
def mean_squared_error(outputs: Tensor, targets: Tensor, options: LossOptions) -> Tensor:
    """Mean of (output - target)², in squared units of the comparison. targets: (n,) or (n, k)."""
    return functional.mse_loss(*_compared(outputs, targets, options))


@_register("mae", "l1", "mean_absolute_error", task="regression")
def mean_absolute_error(outputs: Tensor, targets: Tensor, options: LossOptions) -> Tensor:
    """Mean of |output - target|, in units of the comparison. targets: (n,) or (n, k)."""
    return functional.l1_loss(*_compared(outputs, targets, options))


@_register("huber", "smooth_l1", task="regression")
def huber(outputs: Tensor, targets: Tensor, options: LossOptions) -> Tensor:
    """Quadratic within one unit of the target, linear beyond (Huber 1964, δ = 1). targets: (n,) or (n, k)."""
    return functional.huber_loss(*_compared(outputs, targets, options))


def balanced_class_weights(targets: Tensor | numpy.ndarray, num_classes: int) -> Tensor:
    """N / (k · count of the class), as scikit-learn's "balanced". targets: (n,) class numbers -> (k,)."""
    counts = torch.bincount(torch.as_tensor(targets).long(), minlength=num_classes)
    if (counts == 0).any():
        empty = torch.nonzero(counts == 0).flatten().tolist()
        raise ConfigurationError(
            f"class_weights='balanced' needs samples of every class; classes {empty} have none. Give the weights "
            "as a list, or add samples."
        )
    return int(counts.sum()) / (num_classes * counts.float())


def _as_shares(targets: Tensor, num_classes: int) -> Tensor:
    return targets if targets.ndim == 2 else functional.one_hot(targets.long(), num_classes)


def _compared(outputs: Tensor, targets: Tensor, options: LossOptions) -> tuple[Tensor, Tensor]:
    """Outputs and targets (n, k) in the unit that they are compared in."""
    unit = 1.0 if options.target_sd is None else options.target_sd
    return outputs / unit, _shaped_like(targets, outputs).to(outputs.dtype) / unit


def _shaped_like(targets: Tensor, outputs: Tensor) -> Tensor:
    """(n,) targets for (n, 1) outputs; anything else of another shape is an error, never a broadcast."""
    if targets.numel() != outputs.numel():
        raise LabelMismatchError(
            f"targets have shape {tuple(targets.shape)} but the head gives {tuple(outputs.shape)}; "
            "num_classes must be the number of values per sample."
        )
    return targets.reshape(outputs.shape)
