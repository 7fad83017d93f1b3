"""Which samples of the target lie close together for a model that nobody adapted yet, to judge adapted ones by."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor, nn

from ...training import outputs_of
from ..tuner import Tuner
from ._data import DomainLoaders, Given
from .gap import nearest_neighbours
from .selection import judged_rows


def reference_neighbours(tuner: Tuner, given: Given) -> Tensor | None:
    """Places (m, 10) of the samples nearest to each of those of the target that models are judged by, in their order.

    By the pooled features of the tuner's model as it is: no method has trained them, so that none can have made the
    target look tidy. None where a feature is not finite, and for tasks other than classes, which nobody judges so.
    """
    if tuner.task != "multi_class":
        return None
    device, settings = next(tuner.model.parameters()).device, tuner.settings
    loader = DomainLoaders(tuner, given).target()
    features = judged_rows(outputs_of(_Pooled(tuner.model), loader, device, settings.precision, settings.backend))
    return nearest_neighbours(features) if bool(features.isfinite().all()) else None


@final
class _Pooled(nn.Module):
    """The features of a model as its outputs, so that the fastest backend may run it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.training = False

    def forward(self, inputs: Any) -> Tensor:
        features: Tensor = self.model.embed(inputs)
        return features.float()
