"""Exponential moving average of the trained parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn


@final
class MovingAverage:
    """Keeps average ← decay · average + (1 - decay) · weights, after every optimizer step.

    The decay warms up as (1 + t) / (10 + t), so that short runs are not dominated by their start
    (Tan & Le's EfficientNet training; TensorFlow's ExponentialMovingAverage with num_updates).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._parameters = list(model.parameters())
        self._average = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take the current weights in; frozen parameters keep their exact bytes."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        moving = [(a, p) for a, p in zip(self._average, self._parameters, strict=True) if p.requires_grad]
        torch._foreach_lerp_([a for a, _ in moving], [p.detach() for _, p in moving], 1 - decay)

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model has the averaged weights inside the block, and its own again after it."""
        own = [parameter.detach().clone() for parameter in self._parameters]
        self.copy_into_model()
        try:
            yield
        finally:
            _copy(own, self._parameters)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew from the weights as they are."""
        self.steps = 0
        torch._foreach_copy_(self._average, [parameter.detach() for parameter in self._parameters])

    def state(self, model: nn.Module) -> dict[str, Any]:
        """Count of updates, and the averages that differ from the weights, by parameter name."""
        pairs = zip(model.named_parameters(), self._average, strict=True)
        values = {name: average for (name, parameter), average in pairs if not torch.equal(parameter, average)}
        return {"steps": self.steps, "values": values}

    @torch.no_grad()
    def load_state(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave; the model has its weights of then already."""
        self.steps = state["steps"]
        for (name, parameter), average in zip(model.named_parameters(), self._average, strict=True):
            average.copy_(state["values"].get(name, parameter))

    def copy_into_model(self) -> None:
        """Make the averaged weights the model's own."""
        _copy(self._average, self._parameters)


@torch.no_grad()
def _copy(values: list[Tensor], parameters: list[nn.Parameter]) -> None:
    for value, parameter in zip(values, parameters, strict=True):
        if parameter.requires_grad:
            parameter.copy_(value)
