"""Probabilities, entropies and losses of a model's answers, in float64."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .....errors import ConfigurationError
from .....metrics import TaskKind


def log_probabilities(outputs: Tensor) -> Tensor:
    """Logits (n, k) -> (n, k) float64, log softmax."""
    return functional.log_softmax(outputs.double(), 1)


def entropies(outputs: Tensor) -> Tensor:
    """−Σ p log p of each row of logits, in nats. (n, k) -> (n,) float64."""
    logs = log_probabilities(outputs)
    return -(logs.exp() * logs).sum(1)


def entropy(probabilities: Tensor) -> Tensor:
    """−Σ p log p over the last dimension, in nats; 0 log 0 is 0. (…, k) -> (…)."""
    return torch.special.entr(probabilities).sum(-1)


def binary_entropies(probabilities: Tensor) -> Tensor:
    """−p log p − (1 − p) log(1 − p), in nats. (…) -> (…)."""
    return torch.special.entr(probabilities) + torch.special.entr(1 - probabilities)


def sample_losses(task: TaskKind, outputs: Tensor, targets: Tensor) -> Tensor:
    """Each sample's loss: cross entropy, mean binary cross entropy over labels, or mean squared error over values.

    outputs: (n, k). targets: (n,) class numbers, or (n, k), (n,) read as (n, 1). -> (n,) float64.
    """
    outputs = outputs.double()
    if task == "multi_class":
        return functional.cross_entropy(outputs, targets.long(), reduction="none")
    targets = targets.double().reshape(outputs.shape)
    if task == "multi_label":
        return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(1)
    if task == "regression":
        return functional.mse_loss(outputs, targets, reduction="none").mean(1)
    raise ConfigurationError(f"a sample's loss is defined for multi_class, multi_label and regression, not for {task}.")


def sample_errors(task: TaskKind, outputs: Tensor, targets: Tensor) -> Tensor:
    """1 where a class is wrong; the share of wrong labels. -> (n,) float64."""
    if task == "multi_class":
        return (outputs.argmax(1) != targets.long()).double()
    if task == "multi_label":
        return ((outputs > 0) != (targets.reshape(outputs.shape) > 0.5)).double().mean(1)
    raise ConfigurationError(f"an error is right or wrong for multi_class and multi_label, not for {task}.")
