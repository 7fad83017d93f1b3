"""Metrics of answers that stand in a text: first and last token, (n, 2), against the right ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._metric import SPANS, metric
from ._task import TaskKind

if TYPE_CHECKING:
    import torchmetrics


@metric("exact_span", tasks=SPANS)
def exact_span(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Share of answers of which the first and the last token are right."""
    from ._accumulators import WholeSample

    return WholeSample(share_of_equal_spans)


@metric("span_f1", tasks=SPANS)
def span_f1(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Harmonic mean of the shares of the answer's and of the right answer's tokens that are common."""
    from ._accumulators import WholeSample

    return WholeSample(mean_span_f1)


def share_of_equal_spans(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of spans that are the right ones, (n, 2), (n, 2) -> ()."""
    return (outputs == targets).all(1).double().mean()


def mean_span_f1(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of 2 |common| / (|answer| + |right answer|), tokens counted by place, as SQuAD counts words.

    Rajpurkar et al., SQuAD, EMNLP 2016, section 6.1. (n, 2), (n, 2) first and last tokens -> ()
    """
    first, last = torch.maximum(outputs[:, 0], targets[:, 0]), torch.minimum(outputs[:, 1], targets[:, 1])
    common = (last - first + 1).clamp(min=0).double()
    lengths = (outputs[:, 1] - outputs[:, 0] + 1) + (targets[:, 1] - targets[:, 0] + 1)
    return (2 * common / lengths).mean()
