"""From a head's raw outputs to answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from torch import Tensor

from ..errors import ConfigurationError
from ..metrics import TaskKind


def probabilities(outputs: Tensor, task: TaskKind) -> numpy.ndarray:
    """Softmax over classes, or a sigmoid per label. outputs: (n, k) -> (n, k) float32 in [0, 1]."""
    if task == "regression":
        raise ConfigurationError("predict_proba is for classification; this model was tuned with a regression loss.")
    shares = outputs.softmax(1) if task == "multi_class" else outputs.sigmoid()
    return shares.numpy()


def decide(outputs: Tensor, task: TaskKind, categories: Sequence[str]) -> numpy.ndarray:
    """outputs: (n, k) -> class names or numbers (n,), label matrix (n, k) of 0 and 1, or values (n,) or (n, k)."""
    if task == "regression":
        return outputs.squeeze(1).numpy()
    if task == "multi_label":
        return (outputs > 0).long().numpy()
    classes = outputs.argmax(1).numpy()
    return numpy.asarray(categories)[classes] if categories else classes
