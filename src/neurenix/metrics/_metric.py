"""What the library knows of a metric, and the registry that its file enters it in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from ..registry import Registry
from ._task import TaskKind

if TYPE_CHECKING:
    import torchmetrics

Build = Callable[[TaskKind, int], "torchmetrics.Metric"]

CLASSIFICATION: tuple[TaskKind, ...] = ("multi_class", "multi_label")
MULTI_CLASS: tuple[TaskKind, ...] = ("multi_class",)
ORDINAL: tuple[TaskKind, ...] = ("ordinal",)
SPANS: tuple[TaskKind, ...] = ("span_answering",)
TOKENS: tuple[TaskKind, ...] = ("token_tagging",)  # what is counted of classes of samples can be of tokens
MULTI_LABEL: tuple[TaskKind, ...] = ("multi_label",)
REGRESSION: tuple[TaskKind, ...] = ("regression",)
DETECTION: tuple[TaskKind, ...] = ("detection",)
SEGMENTATION: tuple[TaskKind, ...] = ("segmentation",)
TRANSCRIPTION: tuple[TaskKind, ...] = ("transcription",)


@final
@dataclass(frozen=True)
class Metric:
    """A named measure of outputs against targets.

    build: (task, number of outputs) -> a fresh torchmetrics.Metric, which is fed probabilities
    (classification) or values (regression) and targets, shaped as `prepare` says.
    higher_is_better: None for what has no order (a confusion matrix). range: the smallest and largest value.
    part: key of it among several values that are computed together; "" where it is the only one.
    by_sequence: it is fed the decided tags and the targets of whole sequences, (n, tokens) both.
    """

    name: str
    tasks: tuple[TaskKind, ...]
    higher_is_better: bool | None
    range: tuple[float, float]
    description: str
    build: Build
    part: str = ""
    by_sequence: bool = False


METRICS: Registry[Metric] = Registry("metric", hint="topK_accuracy exists for every K.")


def metric(
    name: str,
    *aliases: str,
    tasks: tuple[TaskKind, ...],
    higher_is_better: bool | None = True,
    range: tuple[float, float] = (0.0, 1.0),
    part: str = "",
    by_sequence: bool = False,
) -> Callable[[Build], Build]:
    """Decorator that registers a build function; the first line of its docstring describes the metric."""

    def register(build: Build) -> Build:
        description = (build.__doc__ or "").partition("\n")[0]
        METRICS.add(name, Metric(name, tasks, higher_is_better, range, description, build, part, by_sequence), *aliases)
        return build

    return register
