"""A head of any kind on any model."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from ...errors import ConfigurationError, LabelMismatchError
from ...metrics import TaskKind
from ...models import PretrainedModel, adopt
from ._backbone import backbone_of
from ._kind import HEADS, SOLVED, HeadKind, begun, record_of
from ._starts import copy_rows


def list_heads(task: str | None = None) -> list[str]:
    """Names of the kinds of heads, sorted; those for any task are among those of each task of a sample as a whole.

    task: "multi_class", "multi_label", "regression", "ordinal", "token_tagging", …; None for all.
    """
    anything: tuple[TaskKind, ...] = ("multi_class", "multi_label", "regression")
    tasks = {kind.task for kind in HEADS.values() if kind.task} | set(anything)
    if task is not None and task not in tasks:
        raise ConfigurationError(f"task={task!r}; the heads here do: {', '.join(sorted(tasks))}.")
    fitting = (
        name
        for name, kind in HEADS.items()
        if task is None or kind.task == task or (kind.task is None and task in anything)
    )
    return sorted(fitting)


def attach_head(
    model: nn.Module, head: HeadKind | str, categories: Sequence[str] = (), *, seed: int = 0
) -> PretrainedModel:
    """A copy of the model with a new head of this kind; what you loaded stays as it was.

    The head is kept by a tuner that gets no num_classes, and comes back with whatever that tuner saves.

    Args:
        model: from load_pretrained_model, or any torch module whose last linear layer is its head.
        head: one of neurenix.transfer.heads, e.g. heads.Cosine(num_outputs=5); a name where none of its settings is
            needed.
        categories: names of its outputs in order; needed for start="by_name", which copies the rows of classes that
            the model's head knows, and prints which.
        seed: of what is drawn at random.

    Raises:
        ConfigurationError: the head cannot work on this model.
        LabelMismatchError: as many names as outputs are needed, or start="by_name" finds no name.
    """
    kind = checked_kind(head)
    changed = adopt(copy.deepcopy(model))
    outputs, start = getattr(kind, "num_outputs", None), getattr(kind, "start", "default")
    if categories and len(categories) != outputs:
        raise LabelMismatchError(
            f"{len(categories)} categories for a head with num_outputs={outputs}; name each output."
        )
    if start == "by_name" and not categories:
        raise ConfigurationError("start='by_name' copies rows of classes that are named; give categories=[…].")
    former, names = changed.head, changed.categories
    put_on(changed, kind, seed, categories)
    if start == "by_name":
        print(f"neurenix: {copy_rows(former, names, changed.head, categories)}")
    if start not in SOLVED:
        changed.head_record = begun(changed.head_record)
    return changed


def checked_kind(head: HeadKind | str) -> HeadKind:
    """The kind that is meant. Raises ConfigurationError where a name leaves open how many outputs it has."""
    if isinstance(head, str):
        kind = HEADS[head]
        try:
            return kind()
        except TypeError:
            raise ConfigurationError(
                f"head={head!r} leaves its settings open; give neurenix.transfer.heads.{kind.__name__}(num_outputs=…)."
            ) from None
    if isinstance(head, HeadKind):
        return head
    raise ConfigurationError(
        f"head={head!r} is no kind of head; possible: {', '.join(HEADS)}, as neurenix.transfer.heads has them."
    )


def put_on(model: PretrainedModel, kind: HeadKind, seed: int, categories: Sequence[str] = ()) -> None:
    """Build a head and put it on the model, in training's order of draws: the same for the same seed."""
    record = record_of(kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = kind.build(backbone_of(model))
    preprocess = kind.preprocessing(model.preprocess)
    model.replace_head(head, categories, record)
    model.preprocess = preprocess
