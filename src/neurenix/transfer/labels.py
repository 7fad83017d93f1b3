"""The label contract: what a head's outputs mean, fixed at the first fit and held ever after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from torch import Tensor

from ..data import (
    ReadTargets,
    SequenceTargets,
    SpanTargets,
    TokenTargets,
    WrittenTargets,
    has_answers,
    has_tagged_words,
    innermost,
    known_targets,
    label_names,
    relabelled,
)
from ..errors import LabelMismatchError
from ..models import PretrainedModel
from ..nn import TaskHead


@dataclass(frozen=True, kw_only=True)
class LabelContract:
    """What a model's answers mean, beside its weights.

    names: of the outputs, in order. units: of values, in order. ignore_index: in targets, what is no class. background:
    the class that is none of the things looked for. Empty and None where there is no such.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    ignore_index: int | None
    background: Any


def contract_of(model: PretrainedModel) -> LabelContract:
    """A model's contract: the names it was tuned on, and what its head and the head's record say."""
    record, head = model.head_record or {}, model.head
    return LabelContract(
        names=tuple(model.categories),
        units=tuple(record.get("units", ())),
        ignore_index=record.get("ignore_index", head.ignore_index if isinstance(head, TaskHead) else None),
        background=record.get("background"),
    )


def check_contract(model: PretrainedModel, dataset: Any) -> None:
    """Raise LabelMismatchError where names, units or special classes cannot be those of the model's head.

    dataset: what it says of itself is held to the head: `units`, a name for each value; `ignore_index`, the number that
    is no class; `background`, the number, among its own classes, of the one that is none of the things looked for.
    """
    contract, record = contract_of(model), model.head_record or {}
    outputs = record.get("num_outputs")
    if contract.names and outputs not in (None, len(contract.names)):
        raise LabelMismatchError(
            f"model.categories has {len(contract.names)} names ({_shown(contract.names)}) for a head with {outputs} "
            "outputs; name each output, in order."
        )
    units = innermost(dataset, "units")
    if units is not None and contract.units and tuple(units) != contract.units:
        raise LabelMismatchError(
            f"the targets are in {_shown(list(units))}, and the model answers in {_shown(contract.units)}; convert the "
            "targets, or tune a head with units of theirs."
        )
    _check_ignored(contract, dataset)
    _check_background(contract, dataset)


def _check_ignored(contract: LabelContract, dataset: Any) -> None:
    ignored = innermost(dataset, "ignore_index")
    if ignored is not None and contract.ignore_index not in (None, ignored):
        raise LabelMismatchError(
            f"in these targets {ignored} is no class (ignore_index), and for this model {contract.ignore_index} is; "
            f"change the one to the other, targets[targets == {ignored}] = {contract.ignore_index}, and say so in the "
            "dataset's ignore_index."
        )


def _check_background(contract: LabelContract, dataset: Any) -> None:
    """Compared by name where both have names: numbers are put in order by name later."""
    ground = innermost(dataset, "background")
    if ground is None or contract.background is None:
        return
    names = label_names(dataset)
    there = names[ground] if names and 0 <= ground < len(names) else ground
    meant: Any = contract.background
    if names:
        meant = contract.names[meant] if contract.names else names[meant] if meant < len(names) else meant
    if there != meant:
        raise LabelMismatchError(
            f"the background of these targets is {there!r}, and that of this model {meant!r}; renumber the classes, or "
            "tune a head with background= of theirs."
        )


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


def sequence_targets(model: PretrainedModel, dataset: Any) -> Callable[[Any], SequenceTargets] | None:
    """What gives the prepared dataset the targets that the model's head writes; None where they stay as they are.

    Texts beside the samples are written in the head's own symbols, or in the tokens of the preprocessing. A head that
    goes on with what it reads has that for a target, where the dataset has no other.
    Raises LabelMismatchError for texts beside the samples of such a head.
    """
    head, texts = model.head, label_names(dataset)
    if not isinstance(head, TaskHead):
        return None
    if head.task == "token_tagging":
        return _token_targets(model, dataset)
    if head.task == "span_answering":
        return _span_targets(model, dataset)
    if head.task == "generation" and texts:
        raise LabelMismatchError(
            f"this model learns to go on with the texts that it reads, and the data has targets beside them "
            f"({_shown(texts)}); give the texts alone, or num_classes to tell classes apart."
        )
    if head.task == "generation":
        return ReadTargets if known_targets(dataset) is None else None
    if not head.writes or not texts:
        return None
    encode = getattr(head, "encode", None) or partial(_encoded, model.preprocess)
    return partial(WrittenTargets, encode=encode)


def _token_targets(model: PretrainedModel, dataset: Any) -> Callable[[Any], SequenceTargets] | None:
    if not has_tagged_words(dataset):
        return None
    if not hasattr(model.preprocess, "word_places"):
        raise LabelMismatchError(
            f"these texts have a tag for each word, and {model.name} has no tokenizer that tells where words begin; "
            "give ready tokens with targets (n, tokens)."
        )
    return partial(TokenTargets, places=model.preprocess.word_places)


def _span_targets(model: PretrainedModel, dataset: Any) -> Callable[[Any], SequenceTargets] | None:
    if not has_answers(dataset):
        return None
    if not hasattr(model.preprocess, "spans"):
        raise LabelMismatchError(
            f"these are questions with texts, and {model.name} has no tokenizer for them; give ready tokens with "
            "targets (n, 2)."
        )
    return partial(SpanTargets, places=model.preprocess.spans)


def _encoded(preprocess: Any, text: str) -> Tensor:
    return cast(Tensor, preprocess.encode_targets([text])[0])


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:8])) + ("…" if len(names) > 8 else "")
