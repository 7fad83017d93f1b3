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
from ..nn import TaskHead
from ..training import LOSSES, LoopSettings, LossOptions, OwnLosses, ReuseOptions, Supervised, balanced_class_weights
from .arguments import as_list, check_types, plain

OWN = "own"  # the losses that a head for boxes, masks or symbols brings
_CLASSIFYING = "cross_entropy"
_DEFAULT_METRICS: dict[str, list[str]] = {
    "multi_class": ["accuracy"],
    "multi_label": ["f1_score"],
    "regression": ["mse"],
    "detection": ["mean_average_precision", "mean_average_precision_50"],
    "segmentation": ["mean_iou"],
    "transcription": ["word_error_rate", "character_error_rate"],
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
    # not every tuner takes these
    head_hidden_sizes: list[int] = field(default_factory=list)
    head_activation: str = "relu"
    ema_decay: float | None = None
    mixup_alpha: float = 0.0
    augmented_views: int | None = None

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """A tuner's arguments."""
        return cls(**arguments)

    def for_head(self, head: nn.Module) -> Self:
        """The same with what None stands for, where it depends on the head that a model was loaded with."""
        own = isinstance(head, TaskHead) and (self.num_classes is None or head.has_classes)
        loss = self.loss or (OWN if own else _CLASSIFYING)
        if loss == OWN:
            if not isinstance(head, TaskHead):
                raise ConfigurationError(
                    f"loss={OWN!r} is for models loaded with a head that brings its losses (a detector's, a "
                    f"segmenter's); possible here: {', '.join(LOSSES)}."
                )
            self._check_own(head.task)
        task = str(head.task) if loss == OWN else LOSSES[loss].task
        return replace(
            self, loss=loss, metrics=_DEFAULT_METRICS.get(task, []) if self.metrics is None else self.metrics
        )

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
        if self.augmented_views is not None and self.augmented_views < 1:
            raise ConfigurationError(
                f"augmented_views={self.augmented_views}; it is a number of versions of each image, or None."
            )
        self.loop()

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
            return OwnLosses(task, num_outputs, reads_vector=cast(TaskHead, head).reads == "vector")
        weights: Any = self.class_weights
        if weights == "balanced":
            weights = None if dataset is None else balanced_class_weights(all_targets(dataset), num_outputs)
        options = LossOptions(
            label_smoothing=self.label_smoothing,
            class_weights=None if weights is None else torch.as_tensor(weights, dtype=torch.float32),
        )
        return Supervised(LOSSES[str(self.loss)], num_outputs, options=options, mixup_alpha=self.mixup_alpha)
