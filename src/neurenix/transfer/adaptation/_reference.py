"""Which samples of the target lie close together for a model that nobody adapted yet, to judge adapted ones by."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...data import Batch
from ...devices import resolve_precision
from ...training import OrdinaryFeed, Processes, answers
from ..tuner import Tuner
from ._data import DomainLoaders, Given
from .gap import nearest_neighbours
from .selection import judged_rows


def reference_neighbours(tuner: Tuner, given: Given) -> Tensor:
    """Places (m, 10) of the samples nearest to each of those of the target that models are judged by, in their order.

    By the pooled features of the tuner's model as it is: no method has trained them, so that none can have made the
    target look tidy.
    """
    loader, processes = DomainLoaders(tuner, given).target(), Processes(next(tuner.model.parameters()).device)
    precision = resolve_precision(tuner.settings.precision, processes.device)
    features, _ = answers(tuner.model, OrdinaryFeed(tuner.model, loader, processes), processes, precision, _features)
    return nearest_neighbours(judged_rows(features))


def _features(model: Any, batch: Batch) -> Tensor:
    found: Tensor = model.embed(batch.inputs)
    return found.float()
