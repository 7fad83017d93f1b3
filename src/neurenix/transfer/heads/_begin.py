"""How a head begins in its first fit: with rows of the head that it replaced, in closed form, in the targets' units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

from torch import nn

from ...data import all_targets
from ...errors import ConfigurationError, LabelMismatchError
from ...models import PretrainedModel
from ...nn import VectorHead
from ._kind import SOLVED, HeadKind, start_of
from ._scaling import TargetScaling
from ._starts import class_rows, copy_rows


@final
class FormerHead:
    """The head that a model was loaded with, as long as its rows are wanted for the one in its place.

    Raises ConfigurationError where its rows or their names are not known.
    """

    def __init__(self, model: PretrainedModel, kind: HeadKind | None) -> None:
        wanted = getattr(kind, "start", None) == "by_name"
        self._head: nn.Module | None = model.head if wanted else None
        self._names = tuple(model.categories)
        if wanted and not (class_rows(model.head) and self._names):
            raise ConfigurationError(
                "start='by_name' copies rows of the head that the model was loaded with, and this one has none, "
                "or no names for its outputs; take start='default' or 'closed_form'."
            )

    def give_rows(self, model: PretrainedModel, names: Sequence[str]) -> None:
        """Copy them into the model's head, once, and say which. names: of the new head's outputs."""
        if self._head is None or start_of(model.head_record) != "by_name":
            return
        if not names:
            raise LabelMismatchError(
                "start='by_name' copies rows by the names of classes, and the training data have class numbers; give "
                "names as targets."
            )
        print(f"neurenix: {copy_rows(self._head, self._names, model.head, names)}")
        self._head = None


def is_solved(model: PretrainedModel, closed_form: bool, is_new: bool) -> bool:
    """Whether the head is to be solved before the first step. closed_form: the plan wants a new head to be."""
    start = start_of(model.head_record)
    return start in SOLVED or (start == "default" and closed_form and is_new)


def learn_units(model: PretrainedModel, dataset: Callable[[], Any]) -> None:
    """Give the head mean and standard deviation of the training targets, once, where it works in units of them."""
    waiting = [part for part in model.head.modules() if isinstance(part, TargetScaling) and not part.is_set]
    if waiting:
        targets = all_targets(dataset())
        for part in waiting:
            part.learn(targets)


def learns(head: nn.Module) -> bool:
    """Whether a head has anything to train; a memory has not."""
    return not isinstance(head, VectorHead) or head.learns
