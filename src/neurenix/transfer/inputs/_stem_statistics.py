"""Statistics of images and of what a first layer makes of them, measured on a user's data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from ...data import DataLoader, Subset, as_dataset, prepare
from ...errors import InputMismatchError
from ...nn import evaluating
from ..one_or_many import many

MOST_SAMPLES = 512  # that are looked at, evenly spread over the data
_BATCH = 16


@final
@dataclass
class Moments:
    """Mean and variance (over the population) of each channel, added up in double precision."""

    count: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros(()))
    squares: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, values: Tensor) -> None:
        """values: (n, channels, …)."""
        rows = values.detach().double().cpu().transpose(0, 1).flatten(1)
        self.count += rows.shape[1]
        self.total = self.total + rows.sum(1)
        self.squares = self.squares + rows.square().sum(1)

    @property
    def mean(self) -> Tensor:
        """(channels,)"""
        return self.total / self.count

    @property
    def variance(self) -> Tensor:
        """(channels,)"""
        return (self.squares / self.count - self.mean.square()).clamp(min=0)


def batches_of(data: Any, preprocess: Any) -> DataLoader:
    """Batches of a user's data as a preprocessing makes them ready.

    Raises InputMismatchError for samples that are no raw ones.
    """
    dataset = as_dataset(many(data, preprocess))
    if len(dataset) > MOST_SAMPLES:
        dataset = Subset(dataset, np.linspace(0, len(dataset) - 1, MOST_SAMPLES).round().astype(np.int64))
    prepared = prepare(dataset, preprocess, False)
    if prepared is dataset:
        raise InputMismatchError(
            f"data= takes raw samples, as a new model would be given them: {_RAW[preprocess.reads]}. These are ready "
            "tensors, or something else."
        )
    return DataLoader(prepared, batch_size=_BATCH)


_RAW = {
    "image": "paths, PIL images, uint8 arrays (height, width, channels), a folder or a dataset of them",
    "sound": "paths, (samples, rate), a folder or a dataset of them",
    "table": "rows as mappings or lists of values",
    "series": "arrays (length, channels) or a dataset of them",
}


@torch.no_grad()
def layer_moments(model: nn.Module, layer: str, batches: DataLoader, made: Callable[[Any], Any]) -> Moments:
    """Moments of what a layer gives for the batches. made: inputs of a batch -> what the model reads."""
    moments, device = Moments(), next(model.parameters()).device
    watched = model.get_submodule(layer)
    with evaluating(model), _stopping_at(watched) as seen:
        for batch in batches.batches(0):
            with contextlib.suppress(_Reached):
                model(made(batch.inputs).to(device))
            moments.add(seen.pop())
    return moments


@torch.no_grad()
def norm_behind(model: nn.Module, layer: str, inputs: Any) -> str | None:
    """Qualified name of the batch norm that reads exactly what a layer gives; None where there is none."""
    given: list[Tensor] = []
    found: list[str] = []
    handles = [model.get_submodule(layer).register_forward_hook(lambda module, args, output: given.append(output))]
    for name, module in model.named_modules():
        if isinstance(getattr(module, "running_var", None), Tensor):
            handles.append(
                module.register_forward_pre_hook(
                    lambda module, args, name=name: found.append(name) if given and args[0] is given[0] else None
                )
            )
    try:
        with evaluating(model):
            model(inputs.to(next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


@final
class _Reached(Exception):
    """What was waited for has been computed."""


@contextlib.contextmanager
def _stopping_at(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Passes end behind the layer, whose output is put into the list."""
    seen: list[Tensor] = []

    def stop(module: nn.Module, arguments: Any, output: Tensor) -> None:
        seen.append(output)
        raise _Reached

    handle = layer.register_forward_hook(stop)
    try:
        yield seen
    finally:
        handle.remove()
