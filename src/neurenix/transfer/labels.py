"""The label contract: what a head's outputs mean, fixed at the first fit and held ever after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from torch import Tensor

from ..data import label_names, relabelled
from ..errors import LabelMismatchError
from ..models import PretrainedModel
from ..nn import UnpooledHead


def with_known_labels(dataset: Any, categories: Sequence[str], num_outputs: int, training: bool) -> Any:
    """The dataset with its classes numbered as the head's outputs are: by name, whatever their order or how many lack.

    categories: names of the outputs; empty before the first fit, when the dataset has to have one for each output.
    Datasets without names are taken as they are; their class numbers are checked batch by batch.
    """
    names = label_names(dataset)
    if not names:
        return dataset
    if categories:
        return relabelled(dataset, categories)
    if not training and len(names) != num_outputs:
        raise LabelMismatchError(
            f"the data names its classes ({_shown(names)}), but the model was tuned on class numbers and cannot match "
            f"them with its {num_outputs} outputs; give these targets as class numbers too."
        )
    if len(names) == 1 and num_outputs > 1:
        raise LabelMismatchError(
            f"the data has only one class ({names[0]}), and there is nothing to learn from one; give samples of at "
            "least two classes."
        )
    if len(names) != num_outputs:
        raise LabelMismatchError(
            f"the data has {len(names)} classes ({_shown(names)}), but the head has {num_outputs} outputs; "
            f"num_classes has to be {len(names)}."
        )
    return dataset


def target_encoder(model: PretrainedModel, dataset: Any) -> Callable[[str], Tensor] | None:
    """What turns target texts into the numbers that the model's head writes; None where its targets are no texts.

    Raises LabelMismatchError for texts beside samples of a head that learns from what it reads.
    """
    head = model.head
    if not isinstance(head, UnpooledHead) or not label_names(dataset):
        return None
    if head.task == "generation":
        raise LabelMismatchError(
            f"this model learns to go on with the texts that it reads, and the data has targets beside them "
            f"({_shown(label_names(dataset))}); give the texts alone, or num_classes to tell classes apart."
        )
    if not head.writes:
        return None
    own = getattr(head, "encode", None)
    return partial(_encoded, model.preprocess) if own is None else cast("Callable[[str], Tensor]", own)


def _encoded(preprocess: Any, text: str) -> Tensor:
    return cast(Tensor, preprocess.encode_targets([text])[0])


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:8])) + ("…" if len(names) > 8 else "")
