"""What every tuner is told about a fit, as one record: checked at the door, saved as JSON, given back by load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, get_origin, get_type_hints

import torch

from ..data import all_targets
from ..devices import Precision
from ..errors import ConfigurationError
from ..training import LOSSES, LoopSettings, LossOptions, ReuseOptions, Supervised, balanced_class_weights
from .arguments import as_list, check_types, plain

_DEFAULT_METRICS = {"multi_class": "accuracy", "multi_label": "f1_score", "regression": "mse"}


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """See Finetuner, which documents each of them. A tuner's own record adds the arguments of its method."""

    num_classes: int | None
    dropout_rate: float
    learning_rate: float | None
    weight_decay: float
    optimizer: str
    loss: str
    metrics: list[Any]
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
        """A tuner's arguments, with what None stands for."""
        given = dict(arguments)
        if given["metrics"] is None:
            given["metrics"] = [_DEFAULT_METRICS[LOSSES[given["loss"]].task]]
        return cls(**given)

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name, hint in hints.items():
            value = getattr(self, name)
            object.__setattr__(self, name, as_list(value) if get_origin(hint) is list else plain(value))
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
        trained = ["loss"] if self.mixup_alpha else ["loss", *metrics]
        return [*trained, *(f"val_{name}" for name in ("loss", *metrics) if validated), "seconds"]

    def objective(self, num_outputs: int, dataset: Any) -> Supervised:
        """What is asked of the model. dataset: whose targets balance the classes; None for evaluation."""
        weights: Any = self.class_weights
        if weights == "balanced":
            weights = None if dataset is None else balanced_class_weights(all_targets(dataset), num_outputs)
        options = LossOptions(
            label_smoothing=self.label_smoothing,
            class_weights=None if weights is None else torch.as_tensor(weights, dtype=torch.float32),
        )
        return Supervised(LOSSES[self.loss], num_outputs, options=options, mixup_alpha=self.mixup_alpha)
