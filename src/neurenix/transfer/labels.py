"""The label contract: what a head's outputs mean, fixed at the first fit and checked ever after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data import label_names
from ..errors import LabelMismatchError
from ..models import PretrainedModel


def accept_labels(model: PretrainedModel, dataset: Any, num_outputs: int) -> None:
    """Give the head the dataset's class names at the first fit; afterwards they have to be the same.

    Datasets without names are accepted as they are; their class numbers are checked batch by batch.
    """
    names = label_names(dataset)
    if not names:
        return
    if len(names) != num_outputs:
        raise LabelMismatchError(
            f"the data has {len(names)} classes ({_shown(names)}), but the head has {num_outputs} outputs; "
            f"num_classes has to be {len(names)}."
        )
    if not model.categories:
        model.categories = tuple(names)
    elif tuple(names) != tuple(model.categories):
        raise LabelMismatchError(
            f"the data's classes ({_shown(names)}) are not those that this model was tuned on "
            f"({_shown(model.categories)}). Use the same classes in the same order, or tune a new head."
        )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:8])) + ("…" if len(names) > 8 else "")
