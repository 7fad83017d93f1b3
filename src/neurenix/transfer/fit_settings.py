"""What every tuner is told about a fit, as one record: checked at the door, saved as JSON, given back by load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast, get_args, get_origin, get_type_hints

import torch
from torch import nn

from ..data import all_targets
from ..devices import Precision
from ..errors import ConfigurationError
from ..nn import TaskHead, VectorHead
from ..training import LOSSES, LoopSettings, LossOptions, OwnLosses, ReuseOptions, Supervised, balanced_class_weights
from .arguments import as_list, check_types, plain
from .heads._choice import as_given, chosen_class, chosen_head
from .heads._kind import OWN, HeadKind

_CLASSIFYING = "cross_entropy"
_DEFAULT_METRICS: dict[str, list[str]] = {
    "multi_class": ["accuracy"],
    "multi_label": ["f1_score"],
    "regression": ["mse"],
    "detection": ["mean_average_precision", "mean_average_precision_50"],
    "segmentation": ["mean_iou"],
    "transcription": ["word_error_rate", "character_error_rate"],
    "ordinal": ["mae", "accuracy"],
    "token_tagging": ["accuracy", "f1_score"],
    "span_answering": ["exact_span", "span_f1"],
}


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """See Finetuner, which documents each of them. A tuner's own record adds the arguments of its method."""

    num_classes: int | None
    dropout_rate: float
    learning_rate: float | None
    weight_decay: float
    optimizer: str
    loss: str | None
    metrics: list[Any] | None
    schedule: str
    warmup: float
    precision: Precision
    accumulation_steps: int
    clip_norm: float | None
    label_smoothing: float
    class_weights: Sequence[float] | str | None
    frozen_prefix: str
    prefix_storage: str
    backend: str
    seed: int
    head: str | Mapping[str, Any] | None = None
    # not every tuner takes these
    head_hidden_sizes: list[int] = field(default_factory=list)
    head_activation: str = "relu"
    ema_decay: float | None = None
    mixup_alpha: float = 0.0
    augmented_views: int | None = None

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """A tuner's arguments."""
        return cls(**{**arguments, "head": as_given(arguments["head"])})

    def head_class(self) -> type[HeadKind] | None:
        """The kind of head that was asked for by name or as a record; None where there is none but num_classes."""
        return chosen_class(self.head)

    def new_head(self) -> HeadKind | None:
        """The head that was asked for; None where none was, or where its number of outputs is not known yet."""
        return chosen_head(self.head, self.num_classes)

    def for_head(self, head: nn.Module, record: Mapping[str, Any] | None) -> Self:
        """The same with what None stands for, where it depends on the head.

        head: that a model was loaded with, or that was attached, with its record.
        """
        kept = chosen_class(record) if self.num_classes is None or isinstance(head, TaskHead) else None
        kind = self.head_class() or kept
        loss = self._loss(head) if kind is None else self._loss_of(kind)
        task = str(getattr(kind or head, "task", "")) if loss == OWN else LOSSES[loss].task
        if loss == OWN:
            self._check_own(task)
        return replace(
            self, loss=loss, metrics=_DEFAULT_METRICS.get(task, []) if self.metrics is None else self.metrics
        )

    def _loss(self, head: nn.Module) -> str:
        """For a head that a model was loaded with, or a linear one in place of it."""
        own = isinstance(head, TaskHead) and (self.num_classes is None or head.has_classes)
        loss = self.loss or (OWN if own else _CLASSIFYING)
        if loss == OWN and not isinstance(head, TaskHead):
            raise ConfigurationError(
                f"loss={OWN!r} is for models loaded with a head that brings its losses (a detector's, a "
                f"segmenter's); possible here: {', '.join(LOSSES)}."
            )
        return loss

    def _loss_of(self, kind: type[HeadKind]) -> str:
        """For a head of one of our kinds."""
        loss = self.loss or kind.loss
        if (kind.loss == OWN) != (loss == OWN):
            possible = repr(OWN) if kind.loss == OWN else ", ".join(LOSSES)
            raise ConfigurationError(
                f"loss={loss!r} does not go with the head {kind.__name__}; possible: {possible}, or None."
            )
        if loss != OWN and kind.task not in (None, LOSSES[loss].task):
            fitting = ", ".join(name for name, entry in LOSSES.items() if entry.task == kind.task)
            raise ConfigurationError(
                f"loss={loss!r} is for {LOSSES[loss].task}, and the head {kind.__name__} does {kind.task}; possible: "
                f"{fitting}."
            )
        return loss

    def _check_own(self, task: str) -> None:
        """Refuse what only classifiers have."""
        default: dict[str, Any] = {
            "class_weights": None,
            "label_smoothing": 0.0,
            "mixup_alpha": 0.0,
            "head_hidden_sizes": [],
        }
        for name, value in default.items():
            if getattr(self, name) != value:
                raise ConfigurationError(f"{name} is for classification losses, and this model's head does {task}.")

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name, hint in hints.items():
            value = getattr(self, name)
            is_list = list in (get_origin(hint), *map(get_origin, get_args(hint))) and value is not None
            object.__setattr__(self, name, as_list(value) if is_list else plain(value))
        check_types(vars(self), hints)
        if isinstance(self.class_weights, str) and self.class_weights != "balanced":
            raise ConfigurationError(
                f"class_weights={self.class_weights!r}; possible: 'balanced', one number per class, or None."
            )
        self._check_head()
        if self.augmented_views is not None and self.augmented_views < 1:
            raise ConfigurationError(
                f"augmented_views={self.augmented_views}; it is a number of versions of each image, or None."
            )
        self.loop()

    def _check_head(self) -> None:
        """Refuse settings of a linear head beside a head that has its own."""
        if self.head is None:
            return
        self.new_head()
        for name, default in {"head_hidden_sizes": [], "head_activation": "relu", "dropout_rate": 0.0}.items():
            if getattr(self, name) != default:
                raise ConfigurationError(
                    f"{name} is a setting of the head that num_classes alone makes; with head= give it there, e.g. "
                    f"head=heads.MLP(num_outputs=…, {name.removeprefix('head_')}=…)."
                )

    def loop(self, keep_statistics: bool = False, keep: bool = False) -> LoopSettings:
        """The part that concerns the loop. keep_statistics: see LoopSettings. keep: see ReuseOptions."""
        return LoopSettings(
            precision=self.precision,
            schedule=self.schedule,
            warmup=self.warmup,
            accumulate=self.accumulation_steps,
            clip_norm=self.clip_norm,
            ema_decay=self.ema_decay,
            keep_statistics=keep_statistics,
            seed=self.seed,
            reuse=ReuseOptions(use=self.frozen_prefix, storage=self.prefix_storage, backend=self.backend, keep=keep),
        )

    def logged(self, metrics: Sequence[str], validated: bool) -> list[str]:
        """Names in the logs of an epoch. metrics: of the training; mixed samples have none."""
        trained = ["loss"] if self.mixup_alpha or self.loss == OWN else ["loss", *metrics]
        return [*trained, *(f"val_{name}" for name in ("loss", *metrics) if validated), "seconds"]

    def objective(self, task: str, num_outputs: int, dataset: Any, head: nn.Module) -> Supervised | OwnLosses:
        """What is asked of a model with this head. dataset: whose targets balance the classes; None for evaluation."""
        if self.loss == OWN:
            own = cast(TaskHead, head)
            anything = own.reads != "vector" and own.needs is None
            return OwnLosses(task, num_outputs, reads_any=anything, check_batch=own.check_batch)
        weights: Any = self.class_weights
        if weights == "balanced":
            weights = None if dataset is None else balanced_class_weights(all_targets(dataset), num_outputs)
        options = LossOptions(
            label_smoothing=self.label_smoothing,
            class_weights=None if weights is None else torch.as_tensor(weights, dtype=torch.float32),
            target_sd=head.target_sd() if isinstance(head, VectorHead) else None,
        )
        return Supervised(LOSSES[str(self.loss)], num_outputs, options=options, mixup_alpha=self.mixup_alpha)
