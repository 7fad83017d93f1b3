"""Adapt a model to a domain whose samples have no labels."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, final

import numpy
import torch
from torch import Tensor, nn

from ...callbacks._base import Callback
from ...devices import Precision
from ...errors import ConfigurationError, NegativeTransferWarning, ResumeError
from ...models import PretrainedModel
from ...training import RUN_FILE, History, Processes, RunOptions
from ..arguments import check_types
from ..finetune import Finetuner
from ..heads._choice import HeadChoice
from ..heads._kind import OWN
from ..tuner import Tuner
from ._choice import MethodChoice, chosen_method
from ._data import DomainData, DomainLoaders, Given
from ._fit import TermFit
from ._judge import BEFORE, BeforeAndAfter
from ._reference import reference_neighbours
from ._report import AdaptationReport
from .gradual.adapt import check_way
from .method import TermMethod, Way, WholeMethod
from .norms import NORMS

_OWN = ("self", "model", "method", "norms", "chooses")  # arguments that are no tuner's


@final
class DomainAdapter:
    """Adapt a model to a target domain without labels, from a source domain with labels.

    A tenth of the source, 20 samples at least, is held out to judge epochs by, and is never trained on; of fewer than
    100 samples none is.

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
        chooses: end with the epoch that criteria without target labels choose, which may be the model from before the
            adaptation; else with the last epoch.
        head_hidden_sizes: widths of hidden layers in the new head; None is (256,), and none for a head= of one's own or
            strategy="lp_ft". What enters the head's last layer is what methods bring together, so that with frozen
            layers below there has to be one.

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
        chooses: bool = True,
        freeze_layers: Sequence[str] = (),
        dropout_rate: float = 0.0,
        head_hidden_sizes: Sequence[int] | None = None,
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
        tail = {name: value for name, value in locals().items() if name not in _OWN}
        self.method = chosen_method(method)
        self.norms = NORMS.canonical(norms)
        self.tuner = _tuner(model, tail)
        self.chooses = chooses
        self.report: AdaptationReport | None = None
        self._source_only: dict[str, Tensor] | None = None  # what an adaptation changed, as it was before
        self._is_trained = bool(self.tuner.history)
        self._nearest: Tensor | None = None  # see reference_neighbours; a comparison knows them
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
        intermediate: Sequence[Any] = (),
        pool: Any = None,
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
            epochs: of the adaptation; in each all of the larger domain is seen.
            source_epochs: on the source alone before it; None is half as many, or none where the model was fitted
                before.
            intermediate, pool: of gradual adaptation, unlabelled samples between the domains: datasets in their order
                from source to target, or one in no order.
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
        _check_there(options)
        before = source_epochs if source_epochs is not None else 0 if self._is_trained else max(1, epochs // 2)
        self._check_call(source, before, callbacks, intermediate, pool)
        if source is None and val_dataset is not None:
            raise ConfigurationError(
                "val_dataset is reported beside the source's samples, and there are none: leave it out, and call "
                "evaluate(val_dataset) after the fit."
            )
        if source is not None:
            self.tuner._build_missing_head(source)
        given = Given.of(source, target, val_dataset, batch_size=batch_size, num_workers=num_workers, tuner=self.tuner)
        loaders = DomainLoaders(self.tuner, given)
        loaders.check()
        learns_source = isinstance(self.method, TermMethod) and self.method.uses_source
        data, named = loaders.data(learns_source=learns_source), list(loaders.categories)
        self._rehearse(data, epochs)
        nearest = self._neighbours(given)
        if before:
            self._fit_source(given, before, options)
            if named != list(loaders.categories):
                data = loaders.data(learns_source=learns_source)
        self._is_trained = True
        self.report, self._source_only = None, None
        start = copy.deepcopy(self.model.state_dict())
        if isinstance(self.method, TermMethod):
            fit = self._term_fit(self.method, data, epochs)
            fit.run(start, callbacks, _part(options, "adaptation"))
            self.report = AdaptationReport.of(fit, nearest)
        elif isinstance(self.method, WholeMethod):
            self._adapt_whole(self.method, data, given, start, intermediate, pool, nearest, options.keeps)
        now = self.model.state_dict()
        self._source_only = {name: part for name, part in start.items() if not torch.equal(part, now[name])}
        self._tell()
        return self.history

    def use_source_only(self) -> None:
        """Put back the model from before the last adaptation, bit for bit.

        Raises ConfigurationError where there was none.
        """
        if self._source_only is None:
            raise ConfigurationError("there is nothing to go back to: fit(source, target) adapts the model.")
        self.model.load_state_dict(self._source_only, strict=False)
        self.report, self._source_only = None, None

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

    def _term_fit(self, method: TermMethod, data: DomainData, epochs: int) -> TermFit:
        return TermFit(self.tuner, method, data, epochs, norms=self.norms, chooses=self.chooses)

    def _rehearse(self, data: DomainData, epochs: int) -> None:
        """Raise what the method would, before any time is spent."""
        if isinstance(self.method, TermMethod):
            self._term_fit(self.method, data, epochs).rehearse()
        elif isinstance(self.method, WholeMethod):
            self.method.check_model(self.tuner)

    def _neighbours(self, given: Given) -> Tensor | None:
        """See reference_neighbours; None for a model that was fitted before, which has made its own features tidy."""
        if self._nearest is not None or given.trained is None or self._is_trained:
            return self._nearest
        return reference_neighbours(self.tuner, given)

    def _fit_source(self, given: Given, epochs: int, options: RunOptions) -> None:
        own = _part(options, "source")
        self.tuner.fit(
            given.source_loader(),
            epochs=epochs,
            run=own.run,
            resume=own.resume,
            checkpoint_every=own.checkpoint_every,
            strict=own.strict,
            on_save_error=own.on_save_error,
        )

    def _adapt_whole(
        self,
        method: WholeMethod,
        data: DomainData,
        given: Given,
        start: Mapping[str, Tensor],
        intermediate: Sequence[Any],
        pool: Any,
        nearest: Tensor | None,
        keeps: bool,
    ) -> None:
        """start: the model's tensors as they are, to be put back where an error ends it. nearest: for the report.

        keeps: whether files may be left for later calls.
        """
        device = next(self.model.parameters()).device
        judged = None
        if data.judged is not None:
            judged = BeforeAndAfter(self.tuner, data, method, self.chooses, keeps=keeps)
        way = Way(
            source=given.trained,
            target=given.target,
            target_batches=lambda: (batch.to(device) for batch in data.target.batches(0)),
            batch_size=given.reading.batch_size,
            num_workers=given.reading.num_workers,
            intermediate=intermediate,
            pool=pool,
        )
        try:
            method.adapt(self.tuner, way)
        except BaseException:
            self.model.load_state_dict(dict(start))
            raise
        if judged is not None:
            judged.end()
            self.report = AdaptationReport.of(judged, nearest)

    def _tell(self) -> None:
        report = self.report
        if report is None:
            return
        print(f"neurenix: {report}")
        if report.verdict is not None and report.verdict.hurts and report.chosen_epoch != BEFORE:
            warnings.warn(
                f"{report.verdict} adapter.use_source_only() puts the model from before back.",
                NegativeTransferWarning,
                stacklevel=3,
            )

    def _check_task(self) -> None:
        if self.tuner.task not in self.method.tasks:
            raise ConfigurationError(
                f"the method {type(self.method).__name__} adapts {', '.join(self.method.tasks)}, and this model does "
                f"{self.tuner.task}; list_adaptation_methods() tells what each can do."
            )
        if self.tuner.settings.loss == OWN:
            raise ConfigurationError(
                "this head brings losses of its own, which methods of adaptation cannot add to; take one that is "
                "trained by a loss of loss=, heads.Linear or heads.Regression say."
            )
        if self.tuner.settings.mixup_alpha:
            raise ConfigurationError("mixup_alpha mixes samples, whose domains are to be told apart; leave it at 0.")

    def _check_call(self, source: Any, before: int, callbacks: Any, intermediate: Sequence[Any], pool: Any) -> None:
        """Raise ConfigurationError for arguments that this method would ignore, or lacks."""
        name = type(self.method).__name__
        if Processes(next(self.model.parameters()).device).count > 1:
            raise ConfigurationError("an adaptation runs in one process; start one alone.")
        if source is None and (self.method.uses_source or before):
            need = "learns from labelled samples of the source too; give them"
            if not self.method.uses_source:
                need = "starts from a trained model; fit it on a source first, or give source_epochs=0"
            raise ConfigurationError(f"source=None, and {name} {need}.")
        walks = isinstance(self.method, WholeMethod) and self.method.walks
        if (len(intermediate) or pool is not None) and not walks:
            raise ConfigurationError(f"intermediate and pool are for method='gradual', and {name} goes in one step.")
        if walks:
            check_way(intermediate, pool)
        if not isinstance(self.method, TermMethod) and self.norms != "separate":
            raise ConfigurationError(
                f"norms={self.norms!r} is for methods that train on both domains, and {name} does not; leave it out."
            )
        has_callbacks = isinstance(callbacks, Callback) or len(callbacks) > 0
        if not isinstance(self.method, TermMethod) and has_callbacks:
            raise ConfigurationError(f"callbacks are told of epochs, and {name} has none of its own; leave them out.")


def source_tuner(model: nn.Module, tail: Mapping[str, Any]) -> Finetuner:
    """What trains a model on the source. tail: DomainAdapter's arguments that are a tuner's, or some of them."""
    hidden = tail.get("head_hidden_sizes")
    if hidden is None:
        takes_some = (
            tail.get("head") is None and tail.get("num_classes") is not None and tail.get("strategy") != "lp_ft"
        )
        hidden = (256,) if takes_some else ()
    return Finetuner(model, **{**tail, "head_hidden_sizes": hidden})


def _tuner(model: nn.Module | Tuner, tail: Mapping[str, Any]) -> Tuner:
    """The tuner that was given, copied, or one of a model."""
    if not isinstance(model, Tuner):
        return source_tuner(model, tail)
    defaults = inspect.signature(DomainAdapter).parameters
    changed = [name for name, value in tail.items() if value != defaults[name].default]
    if changed:
        raise ConfigurationError(
            f"{', '.join(changed)}: the model is a {type(model).__name__}, which has settings of its own; give them "
            "there."
        )
    return copy.deepcopy(model)


def _part(options: RunOptions, name: str) -> RunOptions:
    """The same for a folder within the run's. One that is demanded has been looked for: either part may be begun."""
    root = options.resume if isinstance(options.resume, (str, Path)) else options.run
    run = root if root is None or root is False else Path(root) / name
    return replace(options, run=run, resume=False if options.resume is False else None)


def _check_there(options: RunOptions) -> None:
    """Raise ResumeError where a run is demanded and neither of its parts was begun."""
    root = options.resume if isinstance(options.resume, (str, Path)) else options.run
    if not options.resume:
        return
    if not isinstance(root, (str, Path)):
        raise ResumeError("resume=True goes on in a folder; name it with run=….")
    if not any((Path(root) / part / RUN_FILE).is_file() for part in ("source", "adaptation")):
        raise ResumeError(f"there is no adaptation to resume in {root}; leave resume out to begin one.")
