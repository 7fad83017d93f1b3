"""One pass over a loader without training: loss and metrics, or outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..data import DataLoader
from ..devices import autocast
from ..metrics import MetricSet
from .objective import Objective, labelled
from .processes import Processes


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: DataLoader,
    objective: Objective,
    metrics: MetricSet,
    processes: Processes,
    precision: str,
) -> dict[str, Any]:
    """`loss` and every metric, each sample counted once; the model's mode is put back afterwards."""
    metrics.reset()
    total, samples = torch.zeros((), device=processes.device), 0
    with inference_mode_of(model):
        for batch in processes.epoch(loader, 0):
            objective.check(batch)
            moved = batch.to(processes.device)
            with autocast(processes.device, precision):
                result = objective(model, moved)
            total, samples = total + result.loss * len(batch), samples + len(batch)
            if result.outputs is not None:
                metrics.update(*processes.gathered(result.outputs, labelled(moved)))
    return {"loss": processes.mean(total, samples), **metrics.compute()}


@torch.no_grad()
def outputs_of(model: nn.Module, loader: DataLoader, device: torch.device, precision: str) -> Tensor:
    """The model's outputs for every sample of a loader, in order. -> (n, k) float32 on the CPU."""
    collected = []
    with inference_mode_of(model):
        for batch in loader.batches(0):
            with autocast(device, precision):
                collected.append(model(batch.to(device).inputs).float().cpu())
    return torch.cat(collected)


@contextlib.contextmanager
def inference_mode_of(model: nn.Module) -> Iterator[None]:
    """The model is in eval mode inside the block; every module gets its own mode back after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
