"""The only loop: epochs, phases, validation, callbacks, checkpoints. Each optimizer step is that of step.py."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from ..callbacks._base import Callback
from ..data import Batch, DataLoader
from ..errors import ConfigurationError, NonFiniteError, UnreadableSampleError
from ..metrics import Metrics
from ..models import PretrainedModel
from .checkpoints import Checkpoints
from .ema import MovingAverage
from .environment import environment
from .evaluation import EvaluationInterrupted, answers, evaluate
from .faults import non_finite_tensors
from .freezing import FreezeSchedule, Phase, set_training_mode
from .history import History
from .objective import Objective
from .phases import PhaseKeeper
from .prefix import Features, Feeds, OrdinaryFeed
from .processes import Processes
from .progress import Progress
from .run_folder import RunFolder
from .schedules import rate_factor, warmup_steps
from .settings import LoopSettings
from .signals import Signals
from .state import Parts, capture, restore, restore_callbacks
from .step import OptimizerStep

State = Mapping[str, Any]


@final
class Loop:
    """Runs an objective on a prepared model; the `Run` that callbacks see.

    The model is left in inference mode, with what was learned in place, also when training ends with an error.
    base: digests of the tensors that the model was loaded with, which checkpoints leave out.
    features: gives what enters the head for the training data, where that is computed before the fit anyway.
    """

    def __init__(
        self,
        model: PretrainedModel,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        *,
        freezing: FreezeSchedule,
        settings: LoopSettings,
        metrics: Metrics,
        callbacks: Sequence[Callback] = (),
        save: Callable[[Path], None],
        history: History,
        base: Mapping[str, str],
        features: Callable[[], Features] | None = None,
    ) -> None:
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.freezing, self.settings, self.metrics = freezing, settings, metrics
        self.callbacks = list(callbacks)
        self.history = history
        self.epochs = self.steps_per_epoch = self.batch_size = 0
        self._save, self.base = save, base
        self.processes = Processes(next(model.parameters()).device)
        self._device = self.processes.device
        if isinstance(objective, nn.Module):
            objective.to(self._device)
        self._step = OptimizerStep(
            model, objective, optimizer, settings=settings, metrics=metrics, processes=self.processes
        )
        self._average: MovingAverage | None = None
        self._phases = PhaseKeeper(model, optimizer, self.processes)
        self._feeds = Feeds(
            model,
            self.processes,
            settings.reuse,
            precision=self._step.precision,
            exact=self._step.exact,
            objective=objective,
            features=features,
        )
        self._progress = Progress()
        self._total = torch.zeros((), device=self._device)  # sum of this epoch's losses, each times its samples
        self._signals = Signals()
        self._checkpoints: Checkpoints | None = None

    # --- what callbacks may see and do -------------------------------------------------------------------------

    def environment(self) -> dict[str, Any]:
        """What besides the job decides the last bits of a result."""
        return environment(self._device, self._step.precision, self.processes.count)

    @property
    def epoch(self) -> int:
        """0-based epoch of this fit that is in progress."""
        return self._progress.epoch

    @property
    def steps(self) -> int:
        """Optimizer steps of this fit that are done."""
        return self._progress.steps

    @property
    def is_main_process(self) -> bool:
        """True in one process of a distributed run, and always in a single one."""
        return self.processes.is_main

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
        return self._phases.current.name if self._phases.current else ""

    def stop(self, reason: str) -> None:
        """End the fit after this epoch."""
        self._progress.stop_reason = reason

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
            self._average.restart()

    # --- the story ---------------------------------------------------------------------------------------------

    def fit(
        self,
        train: DataLoader,
        validation: DataLoader | None,
        epochs: int,
        *,
        run: RunFolder | None = None,
        checkpoints: Checkpoints | None = None,
        state: State | None = None,
    ) -> History:
        """Train for `epochs` epochs; returns the history, of earlier fits too.

        run, checkpoints: in the main process, where history, state and result are written. state: of an earlier
        process that was interrupted in this very fit, to go on from.
        """
        self._checkpoints = checkpoints
        try:
            with self.processes.own_random_state(), self._signals:
                parts = self._begin(train, epochs, state)
                while self.epoch < epochs and not self._progress.stop_reason:
                    self._run_epoch(train, validation, parts, run)
            self._phases.leave(self.steps)
        finally:
            if self._average is not None:
                self._average.copy_into_model()
            self.model.eval()
            self._tell(lambda callback: callback.on_train_end(self._last_logs()))
        if run is not None and checkpoints is not None:
            self._average = None  # its values are the model's own now
            with checkpoints.tolerating_full_disks():
                run.finish(self.save, capture(self._parts(train), self._progress, self._total), checkpoints)
        return self.history

    def range_test(self, train: DataLoader, lowest: float, highest: float, steps: int) -> list[tuple[float, float]]:
        """(learning rate, loss) for rates growing geometrically over `steps` steps. Smith, WACV 2017, section 3.3."""
        self._phases.enter(self.freezing.phase(0), 0)
        self._training_mode()
        self._step.begin(OrdinaryFeed(self.processes.wrapped(self.model), train, self.processes))
        points: list[tuple[float, float]] = []
        largest = max(group["base_lr"] for group in self.optimizer.param_groups)
        with self.processes.own_random_state():
            for window in islice(_endless_windows(train, self.settings.accumulate), steps):
                rate = lowest * (highest / lowest) ** (self.steps / max(1, steps - 1))
                for group in self.optimizer.param_groups:
                    group["lr"] = rate * group["base_lr"] / largest
                try:
                    loss, samples = self._step(window, self._progress, epoch=0)
                except NonFiniteError:
                    break
                points.append((rate, float(loss)))
                self._progress.finish_step(window[-1].place, samples)
        self.model.eval()
        return points

    def evaluate(self, loader: DataLoader, interrupted: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """Loss and metrics over a loader, every sample once."""
        self._tell(lambda callback: callback.on_test_begin({}))
        feed = self._feeds.validation(loader)
        logs = evaluate(
            self.model, feed, self.objective, self.metrics, self.processes, self._step.precision, interrupted
        )
        self._tell(lambda callback: callback.on_test_end(logs))
        return logs

    def ask(self, loader: DataLoader, question: Callable[[nn.Module, Batch], Tensor]) -> tuple[Tensor, Tensor]:
        """(answers, places in the dataset) of every sample, without gradients; frozen layers are run once in a fit."""
        return answers(self.model, self._feeds.validation(loader), self.processes, self._step.precision, question)

    def _begin(self, train: DataLoader, epochs: int, state: State | None) -> Parts:
        if epochs < 1:
            raise ConfigurationError(f"epochs={epochs}; train for at least one.")
        self.epochs, self.batch_size = epochs, train.batch_size
        self.steps_per_epoch = -(-self.processes.batches(train) // self.settings.accumulate)
        self._progress = Progress()
        if self.settings.ema_decay is not None:
            self._average = MovingAverage(self.model, self.settings.ema_decay)
        parts = self._parts(train)
        if state is not None:
            self._progress, total = restore(parts, state)
            self._total = total.to(self._device)
        self._check_weights()
        self._tell(lambda callback: callback.attach(self))
        self._tell(lambda callback: callback.on_train_begin({}))
        if state is not None:
            self._enter_phase(resumed=True)
            if self._progress.is_inside_epoch:
                self._tell(lambda callback: callback.on_epoch_begin(self.epoch, {}))
            restore_callbacks(self.callbacks, state)
        return parts

    def _run_epoch(self, train: DataLoader, validation: DataLoader | None, parts: Parts, run: RunFolder | None) -> None:
        started, progress = time.perf_counter(), self._progress
        self._enter_phase()
        if not progress.is_inside_epoch:
            self._begin_epoch()
        if progress.trained is None:
            progress.trained = self._train_epoch(train, parts)
        logs = dict(progress.trained)
        if validation is not None:
            logs |= {f"val_{name}": value for name, value in self._validate(validation, parts).items()}
            progress.see_validation_loss(logs["val_loss"], self.settings.plateau_patience)
        logs |= {"seconds": time.perf_counter() - started}
        record = {"epoch": len(self.history), "phase": self.phase, "learning_rates": self.learning_rates, **logs}
        self.history.append(record)
        self._tell(lambda callback: callback.on_epoch_end(self.epoch, logs))
        progress.end_epoch()
        if run is not None and self._checkpoints is not None:
            with self._checkpoints.tolerating_full_disks():
                run.write_history(self.history, [*train.skipped, *(validation.skipped if validation else [])])
        self._after_step(parts)

    def _validate(self, validation: DataLoader, parts: Parts) -> dict[str, Any]:
        """A signal does not wait for the end of it: it is done again when the run goes on."""
        while True:
            try:
                with self._averaged():
                    return self.evaluate(validation, interrupted=self._interrupted)
            except EvaluationInterrupted:
                self._after_step(parts)

    def _begin_epoch(self) -> None:
        self._progress.begin_epoch()
        self.metrics.reset()
        self._total = torch.zeros((), device=self._device)
        self._tell(lambda callback: callback.on_epoch_begin(self.epoch, {}))

    def _train_epoch(self, train: DataLoader, parts: Parts) -> dict[str, Any]:
        progress = self._progress
        self._training_mode()
        feed = self._feeds.training(train)
        self._step.begin(feed)
        batches = feed.epoch(len(self.history), start=progress.place)
        try:
            for window in _windows(batches, self.settings.accumulate):
                self._train_on(window)
                self._after_step(parts)
        except UnreadableSampleError:
            if self._signals.received is None:
                raise
            self._after_step(parts)  # the signal went to the data workers too
            raise
        return {"loss": float(self._total / progress.samples), **(self.metrics.compute() if progress.measured else {})}

    def _train_on(self, window: list[Batch]) -> None:
        progress = self._progress
        for callback in self.callbacks:
            callback.on_train_batch_begin(progress.epoch_steps, {})
        self._set_rates()
        loss, count = self._step(window, progress, epoch=len(self.history))
        if self._average is not None:
            self._average.update()
        self._total = self._total + loss.detach() * count
        progress.finish_step(window[-1].place, count)
        for callback in self.callbacks:
            callback.on_train_batch_end(progress.epoch_steps - 1, {"samples": progress.samples})

    def _after_step(self, parts: Parts) -> None:
        """Write a checkpoint where one is due, or where a signal wants this process to end."""
        interrupted = self._interrupted()
        checkpoints = self._checkpoints if self.is_main_process else None
        if checkpoints is not None and (interrupted or checkpoints.due(self.steps)):
            checkpoints.write(self.steps, capture(parts, self._progress, self._total))
        if interrupted:
            if checkpoints is not None:
                where = checkpoints.folder.parent
                print(
                    f"neurenix: interrupted after step {self.steps}; the same call goes on from {where}",
                    file=sys.stderr,
                )
            self._signals.take_effect()

    def _interrupted(self) -> bool:
        return self.processes.any(self._signals.received is not None)

    def _check_weights(self) -> None:
        wrong = non_finite_tensors(self.model)
        if wrong:
            raise NonFiniteError(
                f"{len(wrong)} tensors of the model hold NaN or infinity before training ({', '.join(wrong[:3])}); "
                "load its weights again from a good file."
            )

    # --- parts -------------------------------------------------------------------------------------------------

    def _parts(self, train: DataLoader) -> Parts:
        return Parts(
            model=self.model,
            objective=self.objective,
            base=self.base,
            optimizer=self.optimizer,
            scaler=self._step.scaler,
            average=self._average,
            metrics=self.metrics,
            callbacks=self.callbacks,
            history=self.history,
            train=train,
        )

    def _enter_phase(self, resumed: bool = False) -> None:
        """Freeze what the epoch's phase says; a phase that is new moves the boundary of what is frozen."""
        phase = self._next_phase()
        if self._phases.enter(phase, self.steps, resumed=resumed):
            done = self.history.epochs[len(self.history) - self.epoch :]  # of this fit
            same = len(list(takewhile(lambda record: record["phase"] == phase.name, reversed(done))))
            passes = self.freezing.end(self.epoch, self.epochs) - (self.epoch - same)
            self._training_mode()
            self._feeds.begin_phase(len(self.history) - same, passes)

    def _next_phase(self) -> Phase:
        return self.freezing.phase(self.epoch, self._progress.plateaus)

    def _training_mode(self) -> None:
        phase = self._phases.current or self._next_phase()
        set_training_mode(self.model, phase, keep_statistics=self.settings.keep_statistics)

    def _set_rates(self) -> None:
        total = self.epochs * self.steps_per_epoch
        factor = rate_factor(self.settings.schedule, self.steps, total, warmup_steps(self.settings.warmup, total))
        if self.settings.schedule == "plateau":
            factor *= 0.1**self._progress.plateaus
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        return self._average.swapped_in() if self._average is not None else contextlib.nullcontext()

    def _tell(self, hook: Callable[[Callback], None]) -> None:
        for callback in self.callbacks:
            hook(callback)

    def _last_logs(self) -> dict[str, Any]:
        return self.history.epochs[-1] if self.history.epochs else {}


def _windows(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    iterator = iter(batches)
    while window := list(islice(iterator, size)):
        yield window


def _endless_windows(loader: DataLoader, size: int) -> Iterator[list[Batch]]:
    epoch = 0
    while True:
        yield from _windows(loader.batches(epoch), size)
        epoch += 1
