"""One optimizer step. Nothing else in neurenix calls backward() or an optimizer's step()."""

from __future__ import annotations

import warnings
from typing import Any, final

import torch
from torch import Tensor, nn

from ..data import Batch, sample_seed
from ..devices import autocast, is_exact, is_out_of_memory, resolve_precision
from ..errors import NonFiniteError, OutOfMemoryError, SmallerBatchWarning
from ..metrics import Metrics
from ..models import PretrainedModel
from .faster_calls import faster_calls
from .faults import (
    Buffers,
    alone_in_its_batch,
    first_non_finite_layer,
    free_memory,
    gradient_message,
    loss_message,
    suspects,
)
from .objective import Objective, StepResult, labelled
from .optimizers import trainable_parameters
from .prefix import Feed
from .processes import Processes
from .progress import Progress
from .settings import LoopSettings


@final
class OptimizerStep:
    """Forward, backward and update over a window of batches.

    A step that fails leaves weights, buffers and moments as they were before it. A window that does not fit into
    memory is computed in smaller parts, to the same gradient.
    """

    def __init__(
        self,
        model: PretrainedModel,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        *,
        settings: LoopSettings,
        metrics: Metrics,
        processes: Processes,
    ) -> None:
        self.precision = resolve_precision(settings.precision, processes.device, model)
        self.exact = is_exact(settings.precision, processes.device)
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=self.precision == "fp16")
        self._model, self._objective, self._optimizer = model, objective, optimizer
        self._settings, self._metrics, self._processes = settings, metrics, processes
        self._device = processes.device
        self._buffers = Buffers(model)
        self._feed: Feed | None = None
        self._faster = faster_calls(model, self._device)

    def begin(self, feed: Feed) -> None:
        """Take batches from a feed, and look which layers are in training mode now."""
        self._feed, self._buffers = feed, Buffers(self._model)

    def __call__(self, window: list[Batch], progress: Progress, epoch: int) -> tuple[Tensor, int]:
        """-> (mean loss, samples), both over all processes.

        epoch: over all fits, for the step's randomness. progress: before the step; it learns of parts that fit.
        """
        self._buffers.keep()
        while True:
            try:
                return self._attempt(_in_parts(window, progress.largest_part), progress, epoch)
            except NonFiniteError:
                self._buffers.put_back()
                raise
            except ValueError as error:
                self._buffers.put_back()
                if (told := alone_in_its_batch(error)) is not None:
                    raise told from error
                raise
            except (RuntimeError, MemoryError) as error:
                self._buffers.put_back()
                if not is_out_of_memory(error):
                    self._processes.explain(error)
                    raise
                shortage = str(error)
            # outside of the handler, whose error holds on to the tensors that there is no room for
            self._take_smaller_parts(window, progress, shortage)

    def _attempt(self, window: list[Batch], progress: Progress, epoch: int) -> tuple[Tensor, int]:
        """Each sample counts the same, so accumulation and several processes give the gradient of one large batch."""
        count = self._processes.total_samples(window)
        seed = sample_seed(self._settings.seed, epoch, progress.steps)
        self._processes.seed(seed)
        self._optimizer.zero_grad(set_to_none=True)
        shares: list[Tensor] = []
        results: list[tuple[Tensor, Any]] = []
        module = self._processes.wrapped(self._model) if self._feed is None else self._feed.module
        for position, batch in enumerate(window):
            with self._processes.local_gradients(self._model, last=position == len(window) - 1):
                result, targets = self._forward(batch, module)
                share = result.loss * (batch.counted / max(1, count))
                self.scaler.scale(share * self._processes.count).backward()  # their gradients are averaged
            shares.append(share.detach())
            if result.outputs is not None:
                results.append((result.outputs.detach()[: batch.counted], targets[: batch.counted]))
        self._clip_and_step(window, torch.stack(shares), progress, seed, epoch)
        for outputs, targets in results:
            self._metrics.update(*self._processes.gathered(outputs, targets))
        progress.measured |= bool(results)
        return self._processes.summed(torch.stack(shares).sum()), count

    def _forward(self, batch: Batch, module: nn.Module) -> tuple[StepResult, Any]:
        self._objective.check(batch)
        moved = batch.to(self._device)
        with autocast(self._device, self.precision), self._faster:
            return self._objective(module, moved), labelled(moved)

    def _clip_and_step(self, window: list[Batch], shares: Tensor, progress: Progress, seed: int, epoch: int) -> None:
        """shares: (batches,) of the loss. Whether all is finite is asked once: a GPU is waited for with each answer."""
        parameters = trainable_parameters(self._optimizer)
        self.scaler.unscale_(self._optimizer)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        # a scaled gradient may overflow: the scaler leaves that step out, and scales less
        told = shares.sum() if self.scaler.is_enabled() else shares.sum() + norm
        if not bool(torch.isfinite(told)):
            raise NonFiniteError(self._explained(window, shares, progress, seed, epoch))
        if self._settings.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self._settings.clip_norm, norm)
        self.scaler.step(self._optimizer)
        self.scaler.update()

    def _take_smaller_parts(self, window: list[Batch], progress: Progress, shortage: str) -> None:
        longest = max(len(batch) for batch in window)
        largest = min(progress.largest_part or longest, longest)
        self._optimizer.zero_grad(set_to_none=True)
        free_memory()
        if largest == 1 or self._processes.count > 1 or self._objective.needs_whole_batches:
            raise OutOfMemoryError(
                f"memory ran out at {_place(progress)} with {largest} samples at a time on {self._device}: {shortage}. "
                "Take a smaller batch_size with more accumulation_steps, smaller inputs, or freeze more layers."
            )
        progress.largest_part = largest // 2
        kind = nn.modules.batchnorm._BatchNorm
        normalises = any(isinstance(part, kind) and part.training for part in self._model.modules())
        but = " but for its batch norms, which see the smaller parts" * normalises
        warnings.warn(
            f"{largest} samples at once do not fit into memory; they are computed {largest // 2} at a time, to the "
            f"same gradient{but}. Steps, rates and seeds stay as they were.",
            SmallerBatchWarning,
            stacklevel=2,
        )

    def _explained(self, window: list[Batch], shares: Tensor, progress: Progress, seed: int, epoch: int) -> str:
        wrong = (~torch.isfinite(shares)).nonzero().flatten().tolist()
        if not wrong:
            return gradient_message(self._model, _place(progress), window)
        batch, layer = window[wrong[0]], None
        if self._processes.count == 1:  # the others would not take part in a second forward pass
            batch = batch if self._feed is None else self._feed.whole(batch, epoch)
            self._processes.seed(seed)
            layer = first_non_finite_layer(self._model, lambda: self._forward(batch, self._model))
        return loss_message(float(shares[wrong[0]]), _place(progress), suspects(batch), layer)


def _in_parts(window: list[Batch], largest: int | None) -> list[Batch]:
    return window if largest is None else [part for batch in window for part in batch.parts(largest)]


def _place(progress: Progress) -> str:
    return f"step {progress.steps} (epoch {progress.epoch})"
