"""The only loop. Nothing else in neurenix calls backward() or an optimizer's step()."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from ..callbacks._base import Callback
from ..data import Batch, DataLoader, sample_seed
from ..devices import autocast, resolve_precision
from ..errors import ConfigurationError, NonFiniteError, UnusedParameterWarning
from ..metrics import MetricSet
from ..models import PretrainedModel, display_name
from .ema import MovingAverage
from .evaluation import evaluate
from .freezing import FreezeSchedule, Phase, StateWatch, apply_phase, set_training_mode
from .history import History
from .objective import Objective, StepResult, labelled
from .optimizers import trainable_parameters
from .processes import Processes
from .schedules import rate_factor, warmup_steps
from .settings import LoopSettings


@final
class Loop:
    """Runs an objective on a prepared model; the `Run` that callbacks see.

    The model is left in inference mode, with what was learned in place, also when training ends with an error.
    """

    def __init__(
        self,
        model: PretrainedModel,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        *,
        freezing: FreezeSchedule,
        settings: LoopSettings,
        metrics: MetricSet,
        callbacks: Sequence[Callback] = (),
        save: Callable[[Path], None],
        history: History,
    ) -> None:
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.freezing, self.settings, self.metrics = freezing, settings, metrics
        self.callbacks = list(callbacks)
        self.history = history
        self.epoch = self.epochs = self.steps = self.steps_per_epoch = self.batch_size = 0
        self._save = save
        self._processes = Processes(next(model.parameters()).device)
        self._device = self._processes.device
        self._precision = resolve_precision(settings.precision, self._device)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._precision == "fp16")
        self._average: MovingAverage | None = None
        self._phase: Phase | None = None
        self._watch: StateWatch | None = None
        self._phase_began = 0
        self._measured = False  # mixed samples have no outputs that a metric could judge
        self._stop_reason: str | None = None
        self._best_loss, self._stalled, self._plateaus = float("inf"), 0, 0

    # --- what callbacks may see and do -------------------------------------------------------------------------

    @property
    def is_main_process(self) -> bool:
        """True in one process of a distributed run, and always in a single one."""
        return self._processes.is_main

    @property
    def learning_rates(self) -> dict[str, float]:
        """Learning rate now of every group of layers that is being trained."""
        return {
            group["name"]: group["lr"]
            for group in self.optimizer.param_groups
            if any(parameter.requires_grad for parameter in group["params"])
        }

    @property
    def phase(self) -> str:
        """What is being trained, in words."""
        return self._phase.name if self._phase else ""

    def stop(self, reason: str) -> None:
        """End the fit after this epoch."""
        self._stop_reason = reason

    def save(self, path: Path) -> None:
        """Save the tuned model; with a moving average, the averaged one."""
        if self.is_main_process:
            with self._averaged():
                self._save(path)

    def snapshot(self) -> dict[str, Tensor]:
        """A copy on the CPU of everything that training can change."""
        with self._averaged():
            return {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Put a snapshot back."""
        self.model.load_state_dict(dict(snapshot))
        if self._average is not None:
            self._average = MovingAverage(self.model, self._average.decay)

    # --- the story ---------------------------------------------------------------------------------------------

    def fit(self, train: DataLoader, validation: DataLoader | None, epochs: int) -> History:
        """Train for `epochs` epochs; returns the history, of earlier fits too."""
        self._begin(train, epochs)
        try:
            with self._processes.own_random_state():
                for self.epoch in range(epochs):
                    self._run_epoch(train, validation)
                    if self._stop_reason:
                        break
            self._finish_phase()
        finally:
            if self._average is not None:
                self._average.copy_into_model()
            self.model.eval()
            self._tell(lambda callback: callback.on_train_end(self._last_logs()))
        return self.history

    def range_test(self, train: DataLoader, lowest: float, highest: float, steps: int) -> list[tuple[float, float]]:
        """(learning rate, loss) for rates growing geometrically over `steps` steps. Smith, WACV 2017, section 3.3."""
        phase = self.freezing.phase(0)
        self._enter_phase(phase)
        set_training_mode(self.model, phase, keep_statistics=self.settings.keep_statistics)
        points: list[tuple[float, float]] = []
        with self._processes.own_random_state():
            for step, window in zip(range(steps), _endless_windows(train, self.settings.accumulate), strict=False):
                rate = lowest * (highest / lowest) ** (step / max(1, steps - 1))
                largest = max(group["base_lr"] for group in self.optimizer.param_groups)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate * group["base_lr"] / largest
                try:
                    points.append((rate, float(self._step(window)[0])))
                except NonFiniteError:
                    break
        self.model.eval()
        return points

    def _begin(self, train: DataLoader, epochs: int) -> None:
        if epochs < 1:
            raise ConfigurationError(f"epochs={epochs}; train for at least one.")
        self.epochs, self.steps, self.batch_size = epochs, 0, train.batch_size
        self.steps_per_epoch = -(-self._processes.batches(train) // self.settings.accumulate)
        self._stop_reason, self._phase = None, None
        if self.settings.ema_decay is not None:
            self._average = MovingAverage(self.model, self.settings.ema_decay)
        self._tell(lambda callback: callback.attach(self))
        self._tell(lambda callback: callback.on_train_begin({}))

    def _run_epoch(self, train: DataLoader, validation: DataLoader | None) -> None:
        started = time.perf_counter()
        phase = self.freezing.phase(self.epoch, self._plateaus)
        if phase is not self._phase:
            self._enter_phase(phase)
        self._tell(lambda callback: callback.on_epoch_begin(self.epoch, {}))
        logs = self._train_epoch(train, phase)
        if validation is not None:
            with self._averaged():
                logs |= {f"val_{name}": value for name, value in self.evaluate(validation).items()}
            self._watch_plateau(logs["val_loss"])
        logs |= {"seconds": time.perf_counter() - started}
        record = {"epoch": len(self.history), "phase": self.phase, "learning_rates": self.learning_rates, **logs}
        self.history.append(record)
        self._tell(lambda callback: callback.on_epoch_end(self.epoch, logs))

    def _train_epoch(self, train: DataLoader, phase: Phase) -> dict[str, Any]:
        set_training_mode(self.model, phase, keep_statistics=self.settings.keep_statistics)
        self.metrics.reset()
        self._measured = False
        total, samples = torch.zeros((), device=self._device), 0
        batches = self._processes.epoch(train, len(self.history))
        for index, window in enumerate(_windows(batches, self.settings.accumulate)):
            for callback in self.callbacks:
                callback.on_train_batch_begin(index, {})
            self._set_rates()
            loss, count = self._step(window)
            total, samples = total + loss.detach() * count, samples + count
            for callback in self.callbacks:
                callback.on_train_batch_end(index, {"samples": samples})
        mean = self._processes.mean(total, samples)
        return {"loss": mean, **(self.metrics.compute() if self._measured else {})}

    def evaluate(self, loader: DataLoader) -> dict[str, Any]:
        """Loss and metrics over a loader, every sample once."""
        self._tell(lambda callback: callback.on_test_begin({}))
        logs = evaluate(self.model, loader, self.objective, self.metrics, self._processes, self._precision)
        self._tell(lambda callback: callback.on_test_end(logs))
        return logs

    # --- one optimizer step ------------------------------------------------------------------------------------

    def _step(self, window: list[Batch]) -> tuple[Tensor, int]:
        """One optimizer step over a window of batches; returns (mean loss, samples).

        Each batch counts by its number of samples, so accumulation gives the gradient of one large batch.
        """
        count = sum(len(batch) for batch in window)
        self._processes.seed(sample_seed(self.settings.seed, len(self.history), self.steps))
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self._device)
        for position, batch in enumerate(window):
            with self._processes.local_gradients(self.model, last=position == len(window) - 1):
                result = self._forward(batch)
                share = result.loss * (len(batch) / count)
                self._check_finite(share.detach(), batch)
                self._scaler.scale(share).backward()
            loss = loss + share.detach()
        self._clip_and_step(window)
        self.steps += 1
        return loss, count

    def _forward(self, batch: Batch) -> StepResult:
        self.objective.check(batch)
        moved = batch.to(self._device)
        with autocast(self._device, self._precision):
            result = self.objective(self._processes.wrapped(self.model), moved)
        if result.outputs is not None:
            self.metrics.update(*self._processes.gathered(result.outputs.detach(), labelled(moved)))
            self._measured = True
        return result

    def _clip_and_step(self, window: list[Batch]) -> None:
        parameters = trainable_parameters(self.optimizer)
        self._scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not self._scaler.is_enabled() and not bool(torch.isfinite(norm)):
            raise NonFiniteError(self._explain_gradients(window))
        if self.settings.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.settings.clip_norm, norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self._average is not None:
            self._average.update()

    def _check_finite(self, loss: Tensor, batch: Batch) -> None:
        if not bool(torch.isfinite(loss)):
            raise NonFiniteError(
                f"the loss became {float(loss)} at step {self.steps} (epoch {self.epoch}), on samples "
                f"{_suspects(batch)}. The weights are those from before this step. Check these samples for "
                "NaN or extreme values, lower learning_rate, or set clip_norm=1.0."
            )

    def _explain_gradients(self, window: list[Batch]) -> str:
        names = [
            display_name(self.model, name)
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all())
        ]
        samples = [index for batch in window for index in batch.indices.tolist()][:8]
        return (
            f"the gradient became NaN or infinite at step {self.steps} (epoch {self.epoch}) in {', '.join(names[:3])}, "
            f"on samples {samples}. The weights are those from before this step. Lower learning_rate, set "
            "clip_norm=1.0, or use precision='fp32'."
        )

    # --- phases and rates --------------------------------------------------------------------------------------

    def _enter_phase(self, phase: Phase) -> None:
        self._finish_phase()
        self._phase = phase
        apply_phase(self.model, phase)
        self._processes.wrap(self.model)
        self._watch, self._phase_began = StateWatch(self.model, phase, self.optimizer), self.steps

    def _finish_phase(self) -> None:
        """Check what the ending phase promised."""
        if self._watch is None:
            return
        self._watch.check_frozen()
        unmoved = self._watch.unmoved() if self.steps > self._phase_began else []
        self._watch = None
        if unmoved:
            warnings.warn(
                f"{len(unmoved)} trainable parameters did not move ({', '.join(unmoved[:5])}): the loss does not "
                "depend on them. Freeze them, or check the model's forward.",
                UnusedParameterWarning,
                stacklevel=2,
            )

    def _set_rates(self) -> None:
        total = self.epochs * self.steps_per_epoch
        factor = rate_factor(self.settings.schedule, self.steps, total, warmup_steps(self.settings.warmup, total))
        if self.settings.schedule == "plateau":
            factor *= 0.1**self._plateaus
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor

    def _watch_plateau(self, loss: float) -> None:
        """Count epochs without a better validation loss; a plateau moves rates and schedules by plateau on."""
        if loss < self._best_loss:
            self._best_loss, self._stalled = loss, 0
            return
        self._stalled += 1
        if self._stalled >= self.settings.plateau_patience:
            self._plateaus, self._stalled, self._best_loss = self._plateaus + 1, 0, float("inf")

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        return self._average.swapped_in() if self._average is not None else contextlib.nullcontext()

    def _tell(self, hook: Callable[[Callback], None]) -> None:
        for callback in self.callbacks:
            hook(callback)

    def _last_logs(self) -> dict[str, Any]:
        return self.history.epochs[-1] if self.history.epochs else {}


def _suspects(batch: Batch) -> str:
    """The samples to look at: those with inputs that are not finite, else the whole batch."""
    inputs = batch.inputs.values() if isinstance(batch.inputs, Mapping) else [batch.inputs]
    finite = torch.ones(len(batch), dtype=torch.bool)
    for tensor in inputs:
        finite &= torch.isfinite(tensor).flatten(1).all(1).cpu()
    if bool(finite.all()):
        return f"{batch.indices.tolist()[:8]}"
    return f"{batch.indices[~finite].tolist()[:8]}, whose inputs hold NaN or infinity"


def _windows(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    iterator = iter(batches)
    while window := list(islice(iterator, size)):
        yield window


def _endless_windows(loader: DataLoader, size: int) -> Iterator[list[Batch]]:
    epoch = 0
    while True:
        yield from _windows(loader.batches(epoch), size)
        epoch += 1
