"""What a candidate has to keep before its other merits count: limits against the known failures of the criteria."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from ....metrics import TaskKind


@final
@dataclass(frozen=True)
class Guard:
    """A criterion and its limit. limit: (values of all candidates, first to last) -> the worst value that passes.

    Whatever the limit is, of two candidates the better one in the guard's criterion passes if the other does.
    """

    criterion: str
    limit: Callable[[Sequence[float]], float]


# Adapting may cost some of the source; models that lost more than 5 points of it unlearned the task.
KEEPS_SOURCE = Guard("source_error", lambda errors: min(errors) + 0.05)
KEEPS_SOURCE_VALUES = Guard("source_risk", lambda risks: 1.5 * min(risks))
# The first candidate is the source's model: half of the classes that it finds beside one is a collapse.
KEEPS_CLASSES = Guard("class_spread", lambda spreads: 1 + 0.5 * (spreads[0] - 1))


def guards_for(task: TaskKind, keeps_source: bool = True) -> tuple[Guard, ...]:
    """The guards that a task has. keeps_source: False for models that are not to be asked about the source any more."""
    kept = (KEEPS_SOURCE_VALUES if task == "regression" else KEEPS_SOURCE,) if keeps_source else ()
    return (*kept, KEEPS_CLASSES) if task == "multi_class" else kept
