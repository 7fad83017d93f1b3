"""What a criterion is that judges an adapted model without target labels, and what it is given to judge by."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from ....errors import ConfigurationError, LabelMismatchError
from ....metrics import TaskKind
from ....registry import Registry
from ...flat_record import FlatRecord

MOST_SAMPLES = 4000


@final
@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a model: its answers on held-out labelled source samples and on unlabelled target samples.

    source_features, target_features, training_features: (n, d), (m, d), (t, d), what enters the head's last linear
    layer. source_outputs, target_outputs: (n, k), (m, k), logits or values. source_targets: (n,) class numbers, or
    (n, k) labels or values. training_features: of source samples that were trained on, where they are
    known. expected_shares: (k,), how often each class is expected in the target, where an estimate is known.
    """

    task: TaskKind
    source_features: Tensor
    source_outputs: Tensor
    source_targets: Tensor
    target_features: Tensor
    target_outputs: Tensor
    training_features: Tensor | None = None
    expected_shares: Tensor | None = None

    def __post_init__(self) -> None:
        source = (len(self.source_features), len(self.source_outputs), len(self.source_targets))
        target = (len(self.target_features), len(self.target_outputs))
        if len({*source}) > 1 or len({*target}) > 1 or not source[0] or not target[0]:
            raise LabelMismatchError(
                "features, outputs and targets belong to the same samples, and each domain has some; the source has "
                f"{source[0]}, {source[1]} and {source[2]}, the target {target[0]} features and {target[1]} outputs."
            )
        if self.source_features.shape[1] != self.target_features.shape[1]:
            raise LabelMismatchError(
                f"features of source and target are of one model; they are {self.source_features.shape[1]} and "
                f"{self.target_features.shape[1]} wide."
            )

    @property
    def is_finite(self) -> bool:
        """No output or feature is NaN or infinite."""
        parts = (self.source_features, self.source_outputs, self.target_features, self.target_outputs)
        return all(bool(torch.isfinite(part).all()) for part in parts)

    def capped(self, most: int = MOST_SAMPLES, seed: int = 0) -> Evidence:
        """At most `most` samples of each domain, drawn with the seed, in their order; self where there are no more."""
        source, target = (_drawn(len(part), most, seed) for part in (self.source_outputs, self.target_outputs))
        if source is None and target is None:
            return self
        training = self.training_features
        return replace(
            self,
            source_features=_rows(self.source_features, source),
            source_outputs=_rows(self.source_outputs, source),
            source_targets=_rows(self.source_targets, source),
            target_features=_rows(self.target_features, target),
            target_outputs=_rows(self.target_outputs, target),
            training_features=None if training is None else _rows(training, _drawn(len(training), most, seed)),
        )


@dataclass(frozen=True, kw_only=True)
class Criterion(FlatRecord, abc.ABC):
    """A judgement with its settings; a subclass is registered with @CRITERIA.register(name).

    higher_is_better: which way it points. tasks: what it is defined for.
    """

    higher_is_better: ClassVar[bool]
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class",)

    @abc.abstractmethod
    def compute(self, evidence: Evidence) -> float:
        """The judgement of finite evidence."""

    @final
    def score(self, evidence: Evidence) -> float:
        """The judgement, of at most MOST_SAMPLES of each domain; NaN where an output or a feature is not finite.

        Raises ConfigurationError for a task that it is not defined for.
        """
        if evidence.task not in self.tasks:
            raise ConfigurationError(
                f"{type(self).__name__} is not defined for {evidence.task}; defined: "
                f"{', '.join(criteria_for(evidence.task))}."
            )
        capped = evidence.capped()
        return self.compute(capped) if capped.is_finite else math.nan


CRITERIA: Registry[type[Criterion]] = Registry("criterion of adapted models")


def criteria_for(task: TaskKind) -> tuple[str, ...]:
    """Names of the criteria that are defined for a task."""
    return tuple(name for name, criterion in CRITERIA.items() if task in criterion.tasks)


def _drawn(count: int, most: int, seed: int) -> Tensor | None:
    if count <= most:
        return None
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator)[:most].sort().values


def _rows(part: Tensor, places: Tensor | None) -> Tensor:
    return part if places is None else part[places.to(part.device)]
