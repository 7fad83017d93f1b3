"""What all tuners share: one loop, one way to save, the same fit, evaluate and predict."""

from __future__ import annotations

import abc
import copy
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy
import torch
from torch import nn

from ..callbacks._base import Callback
from ..data import Batch, DataLoader, label_names
from ..errors import ConfigurationError
from ..metrics import build_metrics
from ..models import adopt
from ..training import (
    Features,
    History,
    Loop,
    LoopSettings,
    OwnLosses,
    Rates,
    RunOptions,
    Supervised,
    apply_phase,
    build_optimizer,
    fit_in_run,
)
from .arguments import check_types, checked_callbacks
from .base_state import base_name
from .closed_form_head import head_features, solve_head
from .fit_settings import FitSettings
from .heads._begin import FormerHead, is_solved, learn_units, learns
from .heads._install import gets_new_head, install_head, outputs_needed, outputs_of, task_of, waits_for_head
from .heads._kind import OWN, begun
from .job import describe_data, describe_fit
from .learning_rate_curve import LearningRateCurve, check_range, try_rates
from .loaders import Use, check_is_no_pair, first_batch, loader_for
from .predictions import decide, finite_outputs, probabilities
from .published import task_answers, vector_answers
from .remembering import remember
from .resume_check import ResumeCheck, check_resume
from .saving import load_tuning, save_tuning
from .strategies import Plan
from .summary import Summary, summarise
from .surgery import base_of


class Tuner(abc.ABC):
    """A pretrained model that was prepared for training in one way or another, and everything that is done with it.

    The model is copied: what you loaded stays as it was, and `model` is the tuned one. A model without a head, for
    which no num_classes were given, gets one in the first fit, as the data need it.
    """

    def __init__(self, model: nn.Module, settings: FitSettings) -> None:
        self.model = adopt(copy.deepcopy(model))
        self.settings = settings.for_head(self.model.head, self.model.head_record)
        self.task = task_of(self.model.head, self.settings)
        self.history = History()
        before, self._base_is_as_loaded = base_of(self.model)
        self._waits_for_head = waits_for_head(self.model, self.settings)
        self._head_is_ready = not (gets_new_head(settings) or self._waits_for_head)
        self._former = FormerHead(self.model, settings.new_head())
        if not self._waits_for_head:
            install_head(self.model, self.settings)
        self._frozen = self._prepare()
        state = self.model.state_dict()
        self._base = {name: before[base_name(name)] for name in state if base_name(name) in before}
        self.optimizer = self._new_optimizer()
        if not self._waits_for_head:
            self._begin()

    @abc.abstractmethod
    def _prepare(self) -> tuple[str, ...]:
        """Make of the model what is to be trained; gives the qualified names of what stays frozen in any case."""

    @abc.abstractmethod
    def _plan(self, samples: int, epochs: int) -> Plan:
        """What is frozen when, in a fit of so many epochs on so many samples."""

    @abc.abstractmethod
    def _rates(self, learning_rate: float | None) -> Rates:
        """The learning rates. learning_rate: in place of the setting of that name."""

    @abc.abstractmethod
    def _keeps_statistics(self, solved_head: bool) -> bool:
        """Whether batch norms that are trained keep their statistics. solved_head: the head is in its closed form."""

    # --- training ----------------------------------------------------------------------------------------------

    def fit(
        self,
        train_dataset: Any,
        val_dataset: Any = None,
        batch_size: int = 32,
        epochs: int = 10,
        callbacks: Sequence[Callback] | Callback = (),
        num_workers: int = 0,
        run: str | Path | Literal[False] | None = None,
        resume: str | Path | bool | None = None,
        checkpoint_every: int | None = None,
        strict: bool = False,
        on_save_error: str = "raise",
    ) -> History:
        """Train and give the history of all fits so far; a second call goes on, with the optimizer's moments kept.

        Every fit has a run folder with its settings, history, checkpoints and, at the end, the tuned model. Where a
        process was killed in a fit, the same call in a new one goes on from the last checkpoint, to the same bits.

        Args:
            train_dataset: any dataset, loader, folder, table or (inputs, targets) pair that neurenix.data reads. Raw
                images and texts get the preprocessing that belongs to the weights; ready tensors are taken as they are.
            val_dataset: the same for validation, or None.
            batch_size: samples per batch.
            epochs: passes over the training data.
            callbacks: see neurenix.callbacks.
            num_workers: processes that read data; 0 reads in this one.
            run: the run's folder; None for one named by time in $NEURENIX_RUNS or ./runs, False keeps nothing at all.
            resume: None goes on with an unfinished run of this very fit where there is one; True demands one; a
                folder demands it there; False begins anew.
            checkpoint_every: optimizer steps; None is once a minute, for at most a twentieth of the time.
            strict: refuse to go on where the last bits could differ (other versions, threads, device).
            on_save_error: "raise", or "warn" and train on when a checkpoint cannot be written.

        Raises:
            ResumeError: there is nothing to resume, or the folder holds another run.
            RunBusyError: another process trains in that folder.
            NonFiniteError: a loss or gradient is NaN or infinite; the weights are those from before that step.
        """
        options = RunOptions(
            run=run, resume=resume, checkpoint_every=checkpoint_every, strict=strict, on_save_error=on_save_error
        )
        self._check_ready()
        check_types({"epochs": epochs}, {"epochs": int})
        check_is_no_pair(train_dataset, val_dataset, self.task)
        self._build_missing_head(train_dataset)
        train = self._loader(train_dataset, batch_size, num_workers, "training")
        names = self.model.categories or tuple(label_names(train.dataset))
        validation = None if val_dataset is None else self._loader(val_dataset, batch_size, num_workers, names=names)
        first = [self._checked(loader) for loader in (train, validation)]
        self._begin_head(train, names)
        callbacks = checked_callbacks(callbacks, self.settings.logged(self._metrics.names, validation is not None))

        @functools.cache
        def features() -> Features:
            loader = self._loader(train_dataset, batch_size, num_workers)
            return head_features(
                self.model, loader, self._objective(None), self._loop_settings(keep=options.keeps), train.note
            )

        if not learns(self.model.head):
            validate = functools.partial(self.evaluate, val_dataset, batch_size, num_workers)
            return remember(self.model, features, None if val_dataset is None else validate, options, self.history)
        plan = self._plan(samples=len(train.dataset), epochs=epochs).announced()
        known = features if is_solved(self.model, plan.closed_form, not self._head_is_ready) else None

        def prepare() -> None:
            if known is not None:
                solve_head(self.model, known, self.task)
            self.model.head_record = begun(self.model.head_record)

        def job() -> dict[str, Any]:
            data = {**describe_data("training", train, first[0]), **describe_data("validation", validation, first[1])}
            return describe_fit(self.model, self.optimizer, self._stored_settings(), data, epochs)

        loop = self._loop(plan, self._objective(train.dataset), callbacks, features=known, keep=options.keeps)
        fit_in_run(loop, train, validation, epochs, job=job, options=options, prepare=prepare)
        self._head_is_ready, self.model.head_record = True, begun(self.model.head_record)
        return self.history

    def resume_check(
        self,
        train_dataset: Any,
        val_dataset: Any = None,
        batch_size: int = 32,
        callbacks: Sequence[Callback] | Callback = (),
        num_workers: int = 0,
        steps: int = 3,
    ) -> ResumeCheck:
        """Prove on a few samples of your own data that a killed fit ends with the same bits: print what it returns.

        Two epochs of `steps` steps are run on copies, once whole and once killed in both; this tuner stays as it is.
        """
        return check_resume(self, train_dataset, val_dataset, batch_size, callbacks, num_workers, steps)

    def find_lr(
        self,
        train_dataset: Any,
        batch_size: int = 32,
        lowest: float = 1e-7,
        highest: float = 1.0,
        steps: int = 100,
        num_workers: int = 0,
    ) -> LearningRateCurve:
        """Loss against a growing learning rate, and a suggestion; model and optimizer keep every bit."""
        check_range(lowest, highest, steps)
        self._build_missing_head(train_dataset)
        loader = self._loader(train_dataset, batch_size, num_workers, "training")
        self._checked(loader)
        plan = self._plan(samples=len(loader.dataset), epochs=1)
        loop = self._loop(plan, self._objective(loader.dataset), (), self._new_optimizer(one_rate=True))
        return try_rates(loop, loader, lowest, highest, steps)

    # --- use ---------------------------------------------------------------------------------------------------

    def evaluate(self, test_dataset: Any, batch_size: int = 32, num_workers: int = 0) -> dict[str, Any]:
        """`loss` and every metric over a labelled dataset; every sample counts once."""
        loader = self._loader(test_dataset, batch_size, num_workers)
        self._checked(loader)
        return self._loop(self._plan(len(loader.dataset), epochs=1), self._objective(None), ()).evaluate(loader)

    def predict(self, data: Any, batch_size: int = 32, num_workers: int = 0) -> Any:
        """Class names (numbers where there are no names), label matrices, or regression values, one per sample.

        Of a detector a list of {"boxes": (k, 4), "scores": (k,), "labels": (k,)} in the pixels of the image as it came,
        of a segmenter a list of masks (height, width) of its size; see dense_answers.
        data: whatever fit takes, with or without targets; also one batch as a tensor.
        """
        if self.settings.loss == OWN:
            loader = self._loader(data, batch_size, num_workers, "prediction")
            return task_answers(self.model, loader, self.settings.precision)
        return decide(self._outputs(data, batch_size, num_workers), self.task, self.model.categories)

    def predict_proba(self, data: Any, batch_size: int = 32, num_workers: int = 0) -> numpy.ndarray:
        """Probabilities (n, classes), columns in the order of `model.categories`."""
        if self.settings.loss == OWN:
            return self._ask("probabilities", "predict_proba is for classification", data, batch_size, num_workers)
        return probabilities(self._outputs(data, batch_size, num_workers), self.task)

    def predict_sd(self, data: Any, batch_size: int = 32, num_workers: int = 0) -> numpy.ndarray:
        """Standard deviations of what predict says, in the targets' units; of a head that has them (heads.Gaussian)."""
        return self._ask("sd", "predict_sd is for a Gaussian head", data, batch_size, num_workers)

    def summary(self) -> Summary:
        """Layer by layer: parameters, trainable, learning rate, in the optimizer. Print it."""
        return summarise(self.model, self.optimizer, f"{self.model.name}, {self._title()}")

    # --- storage -----------------------------------------------------------------------------------------------

    def save(self, path: str | Path, standalone: bool = False) -> None:
        """Write what changed against the base, head, label names and preprocessing into the folder `path`.

        standalone: write every tensor, so that the base weights are not needed to load it. A base that was trained
            since it was loaded is always written.
        """
        self._check_ready()
        save_tuning(
            Path(path),
            self.model,
            self._base,
            kind=type(self).__name__,
            settings=self._stored_settings(),
            history=self.history.as_json(),
            standalone=standalone or not self._base_is_as_loaded,
        )

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | None = None, device: str = "auto") -> Self:
        """A saved tuner, ready to evaluate, predict and fit on (with fresh optimizer moments).

        path: what save or a callback wrote, or the folder of a finished run.
        model: the module that was tuned, when it was one of your own; models of ours are loaded again by name.
        """
        saved = load_tuning(Path(path), cls.__name__, module=copy.deepcopy(model), device=device)
        tuner = cls(saved.base, **saved.settings)
        saved.put_into(tuner.model)
        tuner.history = History.from_json(saved.history)
        tuner._head_is_ready = True
        return tuner

    # --- parts -------------------------------------------------------------------------------------------------

    @property
    def num_outputs(self) -> int:
        """Outputs of the head. Raises ConfigurationError where there is none yet."""
        if self._waits_for_head:
            raise ConfigurationError(
                f"{self.model.name} has no head yet: fit makes one for the classes of its data, or give num_classes."
            )
        return outputs_of(self.model.head)

    def _check_ready(self) -> None:  # noqa: B027  (most have nothing to refuse)
        """Raise ConfigurationError where the model cannot be trained or saved as it is."""

    def _begin(self) -> None:
        """What can only be made once the outputs are known."""
        self.optimizer = self._new_optimizer()
        self._metrics = build_metrics(self.settings.metrics or [], self.task, self.num_outputs)
        self._objective(None)
        self._show_frozen()

    def _begin_head(self, train: DataLoader, names: tuple[str, ...]) -> None:
        """What a new head takes from the training data before any step: names, units, known rows."""
        self._former.give_rows(self.model, names)
        learn_units(self.model, lambda: train.dataset)
        self.model.categories = names

    def _build_missing_head(self, data: Any) -> None:
        if self._waits_for_head:
            self.settings = replace(self.settings, num_classes=outputs_needed(data, self.task))
            install_head(self.model, self.settings)
            self._waits_for_head = False
            self._begin()

    def _title(self) -> str:
        return type(self).__name__

    def _stored_settings(self) -> dict[str, Any]:
        """The arguments that this tuner takes."""
        taken = inspect.signature(type(self)).parameters
        return {name: value for name, value in asdict(self.settings).items() if name in taken}

    def _loop_settings(self, solved_head: bool = False, keep: bool = False) -> LoopSettings:
        return self.settings.loop(self._keeps_statistics(solved_head), keep)

    def _new_optimizer(self, one_rate: bool = False) -> torch.optim.Optimizer:
        """one_rate: body and head learn as they would with a learning_rate, also where none was given."""
        rate = 1.0 if one_rate and self.settings.learning_rate is None else self.settings.learning_rate
        return build_optimizer(self.model, self.settings.optimizer, self._rates(rate), self.settings.weight_decay)

    def _loader(
        self, data: Any, batch_size: int, num_workers: int, use: Use = "evaluation", names: Sequence[str] = ()
    ) -> DataLoader:
        return loader_for(
            data,
            self.model,
            use,
            num_outputs=self.num_outputs,
            categories=names or self.model.categories,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=self.settings.seed,
            views=self.settings.augmented_views,
        )

    def _checked(self, loader: DataLoader | None) -> Batch | None:
        return None if loader is None else first_batch(loader, self.model, self._objective(None))

    def _show_frozen(self) -> None:
        """Set requires_grad to what the next fit begins with, so that summary() tells the truth before it."""
        if not learns(self.model.head):
            self.model.requires_grad_(False)
            return
        apply_phase(self.model, self._plan(samples=0, epochs=1).freezing.phase(0))

    def _objective(self, dataset: Any) -> Supervised | OwnLosses:
        return self.settings.objective(self.task, self.num_outputs, dataset, self.model.head)

    def _loop(
        self,
        plan: Plan,
        objective: Supervised | OwnLosses,
        callbacks: Sequence[Callback],
        optimizer: torch.optim.Optimizer | None = None,
        features: Callable[[], Features] | None = None,
        keep: bool = False,
    ) -> Loop:
        self._metrics.name_outputs(self.model.categories)
        return Loop(
            self.model,
            objective,
            optimizer or self.optimizer,
            freezing=plan.freezing,
            settings=self._loop_settings(plan.closed_form, keep),
            metrics=self._metrics,
            callbacks=callbacks,
            save=self.save,
            history=self.history if optimizer is None else History(),
            base=self._base,
            features=features,
        )

    def _ask(self, method: str, called: str, data: Any, batch_size: int, num_workers: int) -> numpy.ndarray:
        """What a method of the head gives for each sample. called: what the user called, and what for."""
        ask = getattr(self.model.head, method, None)
        if ask is None:
            raise ConfigurationError(f"{called}, and this model does {self.task}; see predict.")
        loader = self._loader(data, batch_size, num_workers, "prediction")
        return vector_answers(self.model, loader, self.settings.precision, ask)

    def _outputs(self, data: Any, batch_size: int, num_workers: int) -> torch.Tensor:
        loader = self._loader(data, batch_size, num_workers, "prediction")
        return finite_outputs(self.model, loader, self.settings.precision, self.settings.backend)
