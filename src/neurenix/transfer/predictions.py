"""From a head's raw outputs to answers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from ..data import DataLoader, sample_name
from ..devices import Precision
from ..errors import ConfigurationError, NeurenixWarning, NonFiniteError
from ..metrics import TaskKind
from ..models import PretrainedModel
from ..training import outputs_of
from .loaders import first_batch


def finite_outputs(model: PretrainedModel, loader: DataLoader, precision: Precision, backend: str) -> Tensor:
    """The head's raw outputs for all samples, (n, k) float32 on the CPU.

    Raises InputMismatchError for inputs that the model cannot read, NonFiniteError when no sample has an answer; warns
    naming the samples when some have none.
    """
    first_batch(loader, model)
    device = next(model.parameters()).device
    outputs = outputs_of(model, loader, device, precision, backend)
    _check_finite(outputs, loader.dataset)
    return outputs


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


def _check_finite(outputs: Tensor, dataset: Any) -> None:
    wrong = (~torch.isfinite(outputs).all(1)).nonzero().flatten().tolist()
    if not wrong:
        return
    known = len(outputs) == len(dataset)  # unreadable samples may have been left out
    names = ", ".join(sample_name(dataset, row) if known else f"row {row}" for row in wrong[:5])
    message = (
        f"the model's outputs are NaN or infinite for {len(wrong)} of {len(outputs)} samples ({names}); look for NaN "
        "or very large values in them."
    )
    if len(wrong) == len(outputs):
        raise NonFiniteError(message)
    warnings.warn(f"{message} Their answers mean nothing.", NeurenixWarning, stacklevel=5)
