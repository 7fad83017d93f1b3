"""Adapt a model to a domain whose samples have no labels."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, final

import numpy
from torch import nn

from ...callbacks._base import Callback
from ...data import as_dataset
from ...devices import Precision
from ...errors import ConfigurationError
from ...models import PretrainedModel
from ...training import History, RunOptions
from ..arguments import check_types
from ..finetune import Finetuner
from ..heads._choice import HeadChoice
from ..tuner import Tuner
from ._choice import MethodChoice, chosen_method
from ._fit import TermFit
from .method import TermMethod
from .norms import NORMS


@final
class DomainAdapter:
    """Adapt a model to a target domain without labels, from a source domain with labels.

    A fit trains the model on the source first, then adapts it: the loss of the source's labels goes on, and a method
    adds what makes source and target alike, or what the target's own samples teach. `model` is the adapted model.

    Args:
        model: from load_pretrained_model, any torch module whose last linear layer is its head, or a tuner
            (LoraTuner(…), say), which then decides what is trained; the arguments after norms are those of Finetuner
            and belong to it.
        num_classes: outputs of the new head; None keeps the model's own.
        method: a method, neurenix.transfer.adaptation.methods.DANN(weight=0.5) say, or its name, "dann".
        norms: what batch norms that are trained do with two domains: "joint" in one batch, "separate", "source" or
            "target", whose statistics then stay, or "per_domain", with scales and shifts of its own for each.
        head_hidden_sizes: widths of hidden layers in the new head. What enters its last layer is what methods bring
            together, so that with frozen layers below there has to be one.

    Raises:
        UnknownNameError: a method, policy or another name does not exist.
        ConfigurationError: an argument's value cannot work.
    """

    def __init__(
        self,
        model: nn.Module | Tuner,
        num_classes: int | None = None,
        method: MethodChoice = "dann",
        norms: str = "separate",
        freeze_layers: Sequence[str] = (),
        dropout_rate: float = 0.0,
        head_hidden_sizes: Sequence[int] = (256,),
        head_activation: str = "relu",
        head: HeadChoice = None,
        learning_rate: float | None = None,
        weight_decay: float = 1e-5,
        optimizer: str = "adam",
        loss: str | None = None,
        metrics: Sequence[str] | None = None,
        layer_learning_rates: Mapping[str, float] | float | None = None,
        strategy: str | None = None,
        schedule: str = "cosine",
        warmup: float = 0.1,
        precision: Precision = "auto",
        accumulation_steps: int = 1,
        clip_norm: float | None = 1.0,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | str | None = None,
        norm_statistics: str = "auto",
        augmented_views: int | None = None,
        frozen_prefix: str = "auto",
        prefix_storage: str = "auto",
        backend: str = "auto",
        seed: int = 0,
    ) -> None:
        tail = {name: value for name, value in locals().items() if name not in ("self", "model", "method", "norms")}
        self.method = chosen_method(method)
        self.norms = NORMS.canonical(norms)
        self.tuner = _tuner(model, tail)
        self._check_task()

    @property
    def model(self) -> PretrainedModel:
        """The adapted model."""
        return self.tuner.model

    @property
    def history(self) -> History:
        """One record for each epoch, of the source's and of the adaptation's."""
        return self.tuner.history

    def fit(
        self,
        source: Any,
        target: Any,
        val_dataset: Any = None,
        batch_size: int = 32,
        epochs: int = 10,
        source_epochs: int | None = None,
        callbacks: Sequence[Callback] | Callback = (),
        num_workers: int = 0,
        run: str | Path | Literal[False] | None = None,
        resume: str | Path | bool | None = None,
        checkpoint_every: int | None = None,
        strict: bool = False,
        on_save_error: str = "raise",
    ) -> History:
        """Train on the source, then adapt to the target; gives the history of all fits so far.

        Args:
            source: labelled samples, in any form that Finetuner.fit takes; None for methods that need none, where the
                model is trained already.
            target: samples of the target domain. Labels that they have are never learned from or chosen by; they are
                for the report.
            val_dataset: labelled samples of the target domain to report on, or None.
            batch_size: samples of each domain in a batch.
            epochs: of the adaptation; in each the larger domain is seen once.
            source_epochs: on the source alone before it; None is half as many, or none where the model was fitted
                before.
            callbacks: of the adaptation, see neurenix.callbacks.
            num_workers, run, resume, checkpoint_every, strict, on_save_error: see Finetuner.fit. A run has two folders,
                `source` and `adaptation`.

        Raises:
            ConfigurationError: the method cannot do this task, or needs a source.
        """
        options = RunOptions(
            run=run, resume=resume, checkpoint_every=checkpoint_every, strict=strict, on_save_error=on_save_error
        )
        check_types({"epochs": epochs, "source_epochs": source_epochs}, {"epochs": int, "source_epochs": int | None})
        method = self.method
        if not isinstance(method, TermMethod):
            raise ConfigurationError(f"{type(method).__name__} is not trained.")
        before = source_epochs if source_epochs is not None else 0 if self.history else max(1, epochs // 2)
        self._check_source(source, method, before)
        if before:
            self.tuner.fit(
                source,
                batch_size=batch_size,
                epochs=before,
                num_workers=num_workers,
                run=_part(run, "source"),
                checkpoint_every=checkpoint_every,
                strict=strict,
                on_save_error=on_save_error,
            )
        fit = TermFit(
            self.tuner,
            method,
            norms=self.norms,
            batch_size=batch_size,
            num_workers=num_workers,
            options=_options(options, "adaptation"),
        )
        fit.run(as_dataset(source) if method.uses_source else None, target, val_dataset, epochs, callbacks)
        return self.history

    # --- use ---------------------------------------------------------------------------------------------------

    def evaluate(self, test_dataset: Any, batch_size: int = 32, num_workers: int = 0) -> dict[str, Any]:
        """`loss` and every metric over labelled samples."""
        return self.tuner.evaluate(test_dataset, batch_size, num_workers)

    def predict(self, data: Any, batch_size: int = 32, num_workers: int = 0) -> Any:
        """Class names, label matrices or values, one per sample; see Finetuner.predict."""
        return self.tuner.predict(data, batch_size, num_workers)

    def predict_proba(self, data: Any, batch_size: int = 32, num_workers: int = 0) -> numpy.ndarray:
        """Probabilities (n, classes), columns in the order of `model.categories`."""
        return self.tuner.predict_proba(data, batch_size, num_workers)

    def save(self, path: str | Path, standalone: bool = False) -> None:
        """Write the adapted model as its tuner writes it, so that type(adapter.tuner).load reads it."""
        self.tuner.save(path, standalone)

    # --- parts -------------------------------------------------------------------------------------------------

    def _check_task(self) -> None:
        if self.tuner.task not in self.method.tasks:
            raise ConfigurationError(
                f"the method {type(self.method).__name__} adapts {', '.join(self.method.tasks)}, and this model does "
                f"{self.tuner.task}; list_adaptation_methods() tells what each can do."
            )
        if getattr(self.tuner.settings, "mixup_alpha", 0.0):
            raise ConfigurationError("mixup_alpha mixes samples, whose domains are to be told apart; leave it at 0.")

    def _check_source(self, source: Any, method: TermMethod, before: int) -> None:
        if source is None and (method.uses_source or before):
            raise ConfigurationError(
                f"source=None: {type(method).__name__} "
                + (
                    "learns from labelled samples of the source too; give them."
                    if method.uses_source
                    else "starts from a trained model; fit it on a source first, or give source_epochs=0."
                )
            )


def _tuner(model: nn.Module | Tuner, tail: Mapping[str, Any]) -> Tuner:
    """The tuner that was given, copied, or a Finetuner of a model."""
    if not isinstance(model, Tuner):
        return Finetuner(model, **tail)
    defaults = inspect.signature(DomainAdapter).parameters
    changed = [name for name, value in tail.items() if value != defaults[name].default]
    if changed:
        raise ConfigurationError(
            f"{', '.join(changed)}: the model is a {type(model).__name__}, which has settings of its own; give them "
            "there."
        )
    return copy.deepcopy(model)


def _part(run: str | Path | Literal[False] | None, name: str) -> str | Path | Literal[False] | None:
    return run if run is None or run is False else Path(run) / name


def _options(options: RunOptions, name: str) -> RunOptions:
    resume = Path(options.resume) / name if isinstance(options.resume, (str, Path)) else options.resume
    return RunOptions(
        run=_part(options.run, name),
        resume=resume,
        checkpoint_every=options.checkpoint_every,
        strict=options.strict,
        on_save_error=options.on_save_error,
    )
