"""Fine-tune a pretrained model on your data: fit, evaluate, predict, save."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, final

import numpy
import torch
from torch import nn

from ..callbacks._base import Callback
from ..data import Batch, DataLoader, label_names
from ..devices import Precision
from ..metrics import build_metrics
from ..models import adopt
from ..training import (
    LOSSES,
    Features,
    History,
    Loop,
    RunOptions,
    Supervised,
    apply_phase,
    build_optimizer,
    expanded,
    fit_in_run,
    frozen_now,
    released,
    resolve_rates,
    topmost,
)
from .arguments import check_types, checked_callbacks
from .closed_form_head import head_features, solve_head
from .finetune_settings import FinetuneSettings
from .heads import install_head
from .job import describe_data, describe_fit
from .learning_rate_curve import LearningRateCurve, check_range, try_rates
from .loaders import Use, check_is_no_pair, first_batch, loader_for
from .predictions import decide, finite_outputs, probabilities
from .resume_check import ResumeCheck, check_resume
from .saving import base_digests, load_tuning, save_tuning
from .strategies import Plan
from .summary import Summary, summarise


@final
class Finetuner:
    """Adapt a pretrained model to a task by training all of it or some of its layers.

    The model is copied: what you loaded stays as it was, and `finetuner.model` is the tuned one.

    Args:
        model: from load_pretrained_model, or any torch module whose last linear layer is its head.
        num_classes: outputs of the new head (classes, labels or regression values); None keeps the model's own.
        freeze_layers: names or globs of layers that keep every byte, e.g. ["conv1", "layer1", "blocks.*.norm1"].
        dropout_rate: dropout before each linear layer of the new head.
        head_hidden_sizes: widths of hidden layers in the new head; none for a linear head.
        head_activation: activation between them, by name.
        learning_rate: for all layers; None takes 1e-3 for the head and a tenth (5e-5 in transformers) for the body.
        weight_decay: on matrices; biases and normalisation are left out.
        optimizer: adam, adamw, sgd, rmsprop, nadam, radam, adagrad, adafactor.
        loss: cross_entropy, focal, binary_cross_entropy (several labels per sample), mse, mae, huber.
        metrics: names, see neurenix.metrics.METRICS; None takes accuracy, or mse for regression.
        layer_learning_rates: {"layer3.*": 1e-4, "fc": 1e-3}, the longest match wins; or the factor from stage to stage.
        strategy: full, partial, head, progressive, lp_ft, auto; None is full, or partial when layers are frozen.
        unfreeze_by: "epoch" or "plateau", for strategy="progressive".
        schedule: constant, cosine, linear, one_cycle, step, plateau; over the epochs of one fit.
        warmup: share of the steps (below 1) or number of steps in which the rate rises linearly.
        precision: auto, fp32, bf16, fp16.
        accumulation_steps: batches per optimizer step.
        clip_norm: largest norm of the whole gradient; None for no clipping.
        ema_decay: keep an exponential moving average of the weights, and end with it.
        label_smoothing: share of the target spread over all classes.
        mixup_alpha: Beta parameter of mixup (images only); 0 is off.
        class_weights: one number per class, or "balanced".
        norm_statistics: what batch norms that are trained normalise with: the "batch", or their "pretrained"
            statistics, which suits small batches and data; "auto" is pretrained for lp_ft, whose head was solved on
            features made with them, and batch otherwise.
        augmented_views: augmented versions of each training image, which come in turn; None makes new ones in every
            epoch, which learns more and leaves nothing to keep from one epoch to the next.
        frozen_prefix: keep what frozen layers give, computed once per sample: "auto" where it pays, "always", "never".
        prefix_storage: how that is kept: "auto" as it comes, "fp32", "bf16" or "int8", which take less room and round.
        backend: what runs frozen layers and predictions: "auto" (measured), "eager" or one of backends.BACKENDS.
        seed: of the head's start, sample order, augmentation, dropout. The same seed gives the same run.

    Raises:
        UnknownNameError: a layer, loss, metric, optimizer, schedule or strategy of that name does not exist.
        ConfigurationError: an argument's value cannot work.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        freeze_layers: Sequence[str] = (),
        dropout_rate: float = 0.0,
        head_hidden_sizes: Sequence[int] = (),
        head_activation: str = "relu",
        learning_rate: float | None = None,
        weight_decay: float = 1e-5,
        optimizer: str = "adam",
        loss: str = "cross_entropy",
        metrics: Sequence[str] | None = None,
        layer_learning_rates: Mapping[str, float] | float | None = None,
        strategy: str | None = None,
        unfreeze_by: str = "epoch",
        schedule: str = "cosine",
        warmup: float = 0.1,
        precision: Precision = "auto",
        accumulation_steps: int = 1,
        clip_norm: float | None = 1.0,
        ema_decay: float | None = None,
        label_smoothing: float = 0.0,
        mixup_alpha: float = 0.0,
        class_weights: Sequence[float] | str | None = None,
        norm_statistics: str = "auto",
        augmented_views: int | None = None,
        frozen_prefix: str = "auto",
        prefix_storage: str = "auto",
        backend: str = "auto",
        seed: int = 0,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "model")}
        self.settings = FinetuneSettings.of(given)
        self.model = adopt(copy.deepcopy(model))
        self.history = History()
        self._base = base_digests(self.model)
        self._head_is_ready = num_classes is None
        install_head(self.model, self.settings)
        self._frozen = expanded(self.model, self.settings.freeze_layers)
        self.loss = LOSSES[loss]
        self.optimizer = self._new_optimizer()
        self._metrics = build_metrics(self.settings.metrics, self.loss.task, self.num_outputs)
        self._objective(None)
        self._show_frozen()

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
        check_types({"epochs": epochs}, {"epochs": int})
        check_is_no_pair(train_dataset, val_dataset)
        train = self._loader(train_dataset, batch_size, num_workers, "training")
        names = self.model.categories or tuple(label_names(train.dataset))
        validation = None if val_dataset is None else self._loader(val_dataset, batch_size, num_workers, names=names)
        first = [self._checked(loader) for loader in (train, validation)]
        self.model.categories = names
        callbacks = checked_callbacks(callbacks, self.settings.logged(self._metrics.names, validation is not None))
        plan = self._plan(samples=len(train.dataset), epochs=epochs)
        if self.settings.strategy == "auto":
            print(f"neurenix: {plan.reason}")

        @functools.cache
        def features() -> Features:
            loader = self._loader(train_dataset, batch_size, num_workers)
            return head_features(self.model, loader, self._objective(None), self.settings.loop(keep=keep), train.note)

        solves_head, keep = plan.closed_form and not self._head_is_ready, run is not False

        def prepare() -> None:
            if solves_head:
                solve_head(self.model, features, self._objective(None))

        def job() -> dict[str, Any]:
            data = {**describe_data("training", train, first[0]), **describe_data("validation", validation, first[1])}
            return describe_fit(self.model, self.optimizer, self._stored_settings(), data, epochs)

        known = features if solves_head else None
        loop = self._loop(plan, self._objective(train.dataset), callbacks, features=known, keep=keep)
        fit_in_run(loop, train, validation, epochs, job=job, options=options, prepare=prepare)
        self._head_is_ready = True
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

    def unfreeze_layers(self, layers: Sequence[str] | str) -> None:
        """Let layers learn from the next fit on, and of what is frozen now only them.

        The optimizer's moments of the others stay. strategy="head" becomes "partial" by this.
        """
        self._freeze(released(self._frozen_now(), expanded(self.model, layers)))

    def freeze_layers(self, layers: Sequence[str] | str) -> None:
        """Keep more layers as they are, from the next fit on."""
        self._freeze(tuple(dict.fromkeys([*self._frozen_now(), *expanded(self.model, layers)])))

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

    def predict(self, data: Any, batch_size: int = 32, num_workers: int = 0) -> numpy.ndarray:
        """Class names (numbers where there are no names), label matrices, or regression values, one per sample.

        data: whatever fit takes, with or without targets; also one batch as a tensor.
        """
        return decide(self._outputs(data, batch_size, num_workers), self.loss.task, self.model.categories)

    def predict_proba(self, data: Any, batch_size: int = 32, num_workers: int = 0) -> numpy.ndarray:
        """Probabilities (n, classes), columns in the order of `model.categories`."""
        return probabilities(self._outputs(data, batch_size, num_workers), self.loss.task)

    def summary(self) -> Summary:
        """Layer by layer: parameters, trainable, learning rate, in the optimizer. Print it."""
        return summarise(self.model, self.optimizer, f"{self.model.name}, strategy {self.settings.strategy}")

    # --- storage -----------------------------------------------------------------------------------------------

    def save(self, path: str | Path, standalone: bool = False) -> None:
        """Write what changed against the base, head, label names and preprocessing into the folder `path`.

        standalone: write every tensor, so that the base weights are not needed to load it.
        """
        save_tuning(
            Path(path),
            self.model,
            self._base,
            kind="Finetuner",
            settings=self._stored_settings(),
            history=self.history.as_json(),
            standalone=standalone,
        )

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | None = None, device: str = "auto") -> Finetuner:
        """A saved Finetuner, ready to evaluate, predict and fit on (with fresh optimizer moments).

        path: what save or a callback wrote, or the folder of a finished run.
        model: the module that was tuned, when it was one of your own; models of ours are loaded again by name.
        """
        saved = load_tuning(Path(path), "Finetuner", module=copy.deepcopy(model), device=device)
        tuner = cls(saved.base, **saved.settings)
        saved.put_into(tuner.model)
        tuner.history = History.from_json(saved.history)
        tuner._head_is_ready = True
        return tuner

    # --- parts -------------------------------------------------------------------------------------------------

    @property
    def num_outputs(self) -> int:
        """Outputs of the head."""
        return [module for module in self.model.head.modules() if isinstance(module, nn.Linear)][-1].out_features

    def _new_optimizer(self, one_rate: bool = False) -> torch.optim.Optimizer:
        """one_rate: body and head learn as they would with a learning_rate, also where none was given."""
        rate = 1.0 if one_rate and self.settings.learning_rate is None else self.settings.learning_rate
        rates = resolve_rates(self.model, rate, self.settings.layer_learning_rates)
        return build_optimizer(self.model, self.settings.optimizer, rates, self.settings.weight_decay)

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

    def _stored_settings(self) -> dict[str, Any]:
        return {**asdict(self.settings), "freeze_layers": topmost(self.model, self._frozen)}

    def _plan(self, samples: int, epochs: int) -> Plan:
        return self.settings.plan(self.model, self._frozen, samples, self.num_outputs, epochs)

    def _frozen_now(self) -> tuple[str, ...]:
        return self._frozen if self._chooses_layers() else frozen_now(self.model)

    def _freeze(self, frozen: tuple[str, ...]) -> None:
        if not self._chooses_layers():
            self.settings = replace(self.settings, strategy="partial" if frozen else "full")
        self._frozen = frozen
        self._show_frozen()

    def _chooses_layers(self) -> bool:
        """Whether the next fit's strategy decides what is frozen beside the layers named; auto does it once."""
        strategy = self.settings.strategy
        return strategy in ("lp_ft", "progressive") or (strategy == "auto" and not self.history)

    def _show_frozen(self) -> None:
        """Set requires_grad to what the next fit begins with, so that summary() tells the truth before it."""
        apply_phase(self.model, self._plan(samples=0, epochs=1).freezing.phase(0))

    def _objective(self, dataset: Any) -> Supervised:
        return self.settings.objective(self.num_outputs, dataset)

    def _loop(
        self,
        plan: Plan,
        objective: Supervised,
        callbacks: Sequence[Callback],
        optimizer: torch.optim.Optimizer | None = None,
        features: Callable[[], Features] | None = None,
        keep: bool = False,
    ) -> Loop:
        return Loop(
            self.model,
            objective,
            optimizer or self.optimizer,
            freezing=plan.freezing,
            settings=self.settings.loop(plan.closed_form, keep),
            metrics=self._metrics,
            callbacks=callbacks,
            save=self.save,
            history=self.history if optimizer is None else History(),
            base=self._base,
            features=features,
        )

    def _outputs(self, data: Any, batch_size: int, num_workers: int) -> torch.Tensor:
        loader = self._loader(data, batch_size, num_workers, "prediction")
        return finite_outputs(self.model, loader, self.settings.precision, self.settings.backend)
