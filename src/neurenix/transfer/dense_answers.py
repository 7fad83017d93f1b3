"""Answers of heads that read unpooled features, in the terms of the samples as they came."""

from __future__ import annotations

from typing import Any

import torch

from ..data import DataLoader
from ..devices import Precision, autocast, resolve_precision
from ..models import PretrainedModel
from ..training import inference_mode_of
from ..training.faults import in_fitting_parts
from .loaders import first_batch


@torch.no_grad()
def dense_answers(model: PretrainedModel, loader: DataLoader, precision: Precision) -> list[Any]:
    """One answer for each sample of a loader, in the dataset's order, on the CPU.

    detection: {"boxes": (k, 4) x1 y1 x2 y2, "scores": (k,), "labels": (k,)[, "masks": (k, height, width)]}.
    segmentation: (height, width) int64. Both in the pixels of the image as it came, where the model's preprocessing can
    tell (its method `restore`); else in those of the network's input.
    """
    first_batch(loader, model)
    device = next(model.parameters()).device
    answers: dict[int, Any] = {}

    def compute(part: Any) -> list[Any]:
        with autocast(device, resolve_precision(precision, device)):
            outputs = model(part.inputs)
        restore = getattr(model.preprocess, "restore", None)
        return list(restore(outputs, part.inputs) if restore else outputs)

    with inference_mode_of(model):
        for batch in loader.batches(0):
            parts = in_fitting_parts(batch.to(device), compute)
            found = [answer for part in parts for answer in part]
            answers |= dict(zip(batch.indices.tolist(), found, strict=True))
    return [answers[index] for index in sorted(answers)]
