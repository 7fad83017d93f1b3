"""One pass over a loader without training: loss and metrics, or outputs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..backends import Forward, fast_forward, named
from ..data import Batch, DataLoader, work
from ..data._batch import rows
from ..devices import Precision, autocast, is_exact, move, resolve_precision
from ..memory import kept_memory
from ..metrics import Metrics
from ..nn import evaluating
from .faults import in_fitting_parts
from .objective import Objective, StepResult, labelled
from .prefix import Feed
from .processes import Processes


class EvaluationInterrupted(Exception):
    """A signal came in the middle of an evaluation; the loop catches it."""


@torch.no_grad()
@kept_memory()
def evaluate(
    model: nn.Module,
    feed: Feed,
    objective: Objective,
    metrics: Metrics,
    processes: Processes,
    precision: str,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """`loss` and every metric, each sample counted once; the model's mode is put back afterwards.

    feed: gives the batches, and what to call with them: the model, or a part of it.
    interrupted: looked at before each batch; raises EvaluationInterrupted when it says so.
    """

    def forward(part: Batch) -> tuple[StepResult, int]:
        with autocast(processes.device, precision):
            return objective(feed.module, part), part.counted

    metrics.reset()
    total, samples = torch.zeros((), device=processes.device), 0
    with evaluating(model):
        for batch in feed.epoch(0):
            if interrupted():
                raise EvaluationInterrupted
            objective.check(batch)

            results = in_fitting_parts(batch.to(processes.device), forward)
            total, samples = total + sum(result.loss * size for result, size in results), samples + batch.counted
            if results[0][0].outputs is not None:
                outputs, counted = _joined([result.outputs for result, _ in results]), slice(batch.counted)
                targets = move(labelled(batch), processes.device)
                metrics.update(*processes.gathered(rows(outputs, counted), rows(targets, counted)))
    return {"loss": processes.mean(total, samples), **metrics.compute()}


@torch.no_grad()
@kept_memory()
def answers(
    model: nn.Module, feed: Feed, processes: Processes, precision: str, ask: Callable[[nn.Module, Batch], Tensor]
) -> tuple[Tensor, Tensor]:
    """What `ask` gives for every sample of a feed, (n, …) on the CPU, and the samples' places in the dataset, (n,).

    The model's mode is put back afterwards.
    """
    found, places = [], []

    def compute(part: Batch) -> Tensor:
        with autocast(processes.device, precision):
            return ask(feed.module, part).cpu()

    with evaluating(model):
        for batch in feed.epoch(0):
            found += in_fitting_parts(batch.to(processes.device), compute)
            places.append(batch.indices)
    return torch.cat(found), torch.cat(places)


def _joined(parts: list[Any]) -> Any:
    """The outputs of a batch's parts as those of the batch: tensors one after the other, or lists."""
    return torch.cat(parts) if isinstance(parts[0], Tensor) else [sample for part in parts for sample in part]


def outputs_of(
    model: nn.Module, loader: DataLoader, device: torch.device, precision: Precision, backend: str = "eager"
) -> Tensor:
    """The model's outputs for every sample of a loader, in the dataset's order. -> (n, k) float32 on the CPU."""
    forward: Forward | None = None
    collected, places = [], []

    def compute(part: Batch) -> Tensor:
        assert forward is not None
        answer = forward(part.inputs)
        return named(answer)[""].float().cpu()

    # a single batch is often one of many calls, each of which would give its memory back
    keeping = kept_memory() if len(loader) > 1 else contextlib.nullcontext()
    with evaluating(model), keeping:
        for batch in loader.batches(0):
            moved = batch.to(device)
            if forward is None:
                samples = work(loader.dataset, moved.inputs)
                forward = fast_forward(
                    model,
                    moved.inputs,
                    samples=samples,
                    precision=resolve_precision(precision, device, model),
                    exact=is_exact(precision, device),
                    backend=backend,
                    say=_say,
                )
            collected += in_fitting_parts(moved, compute)
            places.append(batch.indices)
    return torch.cat(collected)[torch.cat(places).argsort()]


def _say(message: str) -> None:
    print(f"neurenix: {message}", file=sys.stderr)  # what is printed to the other may be the answers
