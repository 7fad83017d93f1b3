"""Recorded edits: tried out before anything changes, done, undone, and done again on another model."""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from ...errors import ConfigurationError, EditError
from ...models import PretrainedModel, display_name
from ...models._edit_log import Applied, BeforeEdits, EditLog
from ...registry import Registry
from ..base_state import base_digests, base_name, is_as_loaded
from ._changes import Changes
from ._optimizers import check_optimizer, follow
from ._trial import Flow, check_flow, example_inputs, flow, structure_of

PUT_ASIDE = "aside."
_NAME = "edit"


class Edit(abc.ABC):
    """One change to a model's layers or inputs, as a frozen record of JSON values.

    All that it needs to know about the model is in the record, so that the same record does the same to a fresh base.
    """

    @abc.abstractmethod
    def apply(self, model: nn.Module, changes: Changes) -> None:
        """Change the model by nothing but `changes`; raises EditError before the first of them."""

    @abc.abstractmethod
    def describe(self) -> str:
        """What is done, in words, as a message goes on after "after …"."""


class InputEdit(Edit):
    """An edit after which the model reads other inputs than before."""

    @abc.abstractmethod
    def inputs_after(self, model: nn.Module, inputs: Any) -> Any:
        """A batch that the edited model reads, to try it out with. inputs: one that it read before."""


EDITS: Registry[type[Any]] = Registry("edit")


@final
@dataclass(frozen=True)
class Trial:
    """A model about to be edited. twin: its structure around the same tensors; before: what flows through it."""

    model: nn.Module
    twin: nn.Module
    inputs: Any
    before: Flow

    @classmethod
    def of(cls, model: nn.Module, inputs: Any = None) -> Self:
        """inputs: a batch that the model reads; None for one made by its preprocessing.

        Raises ConfigurationError for what is no module, and where the model cannot read the inputs.
        """
        if not isinstance(model, nn.Module):
            raise ConfigurationError(f"only torch modules can be edited; this is of type {type(model).__name__}.")
        inputs = example_inputs(model) if inputs is None else inputs
        twin = structure_of(model)
        try:
            before = flow(twin, inputs)
        except Exception as error:
            raise ConfigurationError(
                f"the model cannot read the inputs that an edit is tried out with: {error.__cause__ or error}. Give a "
                "batch of its inputs: inputs=…."
            ) from error
        return cls(model, twin, inputs, before)


def perform(
    trial: Trial,
    edit: Edit,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """Do an edit and give its record. Where it would not work the model is as it was.

    optimizer: trains the model, and shall train what the edit makes of it. tensors: see Changes.
    Raises EditError where a layer could not read what it would be given, or a tie would break.
    """
    model, tensors = trial.model, tensors or {}
    check_optimizer(optimizer, model)
    slots = _slots(trial.twin)
    edit.apply(trial.twin, Changes(tensors))
    _check_ties(slots, trial.twin, edit)
    _check_head(trial, edit)
    inputs = edit.inputs_after(trial.twin, trial.inputs) if isinstance(edit, InputEdit) else trial.inputs
    check_flow(trial.twin, inputs, trial.before, edit.describe())
    log = edit_log(model)
    if log is None:
        log = EditLog(_before_edits(model))
    parameters = list(model.parameters())
    changes = Changes(tensors)
    edit.apply(model, changes)
    if optimizer is not None:
        changes.displaced = follow(optimizer, parameters, model, changes.successors)
    record = record_of(edit)
    log.applied.append(Applied(record, changes.initial_tensors(), changes))
    model.edits = log  # type: ignore[assignment]
    return record


def undo_edit(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """Take the last edit back and give its record: structure, names and inputs are what they were before it.

    Layers that come back have the numbers that they had, and those that stay keep what they have learned since.
    optimizer: follows; parameters that come back get the moments that it knew of them.
    Raises EditError where there is none.
    """
    log = edit_log(model)
    if log is None or not log.applied:
        raise EditError("this model was not edited, so there is nothing to undo.")
    check_optimizer(optimizer, model)
    parameters = list(model.parameters())
    last = log.applied.pop()
    last.changes.undo()
    if optimizer is not None:
        successors = [(new, old) for old, new in last.changes.successors]
        follow(optimizer, parameters, model, successors, last.changes.displaced)
    if not log.applied:
        model.edits = None  # type: ignore[assignment]
    return dict(last.record)


def list_edits(model: nn.Module) -> list[dict[str, Any]]:
    """The records of all edits of a model, in order, as JSON values."""
    log = edit_log(model)
    return [] if log is None else [dict(applied.record) for applied in log.applied]


def replay_edits(
    model: nn.Module,
    edits: nn.Module | Sequence[Mapping[str, Any]],
    optimizer: torch.optim.Optimizer | None = None,
    inputs: Any = None,
) -> None:
    """Do edits again, on a fresh base for instance, each tried out before it changes anything.

    edits: an edited model, whose added layers begin here as they began there, or records as list_edits gives them,
    whose layers begin as torch draws them by a fixed seed.
    Raises EditError where one does not fit; the edits before it have been done.
    """
    if isinstance(edits, nn.Module):
        log = edit_log(edits)
        steps = [] if log is None else [(applied.record, applied.tensors) for applied in log.applied]
    else:
        steps = [(record, {}) for record in edits]
    for record, tensors in steps:
        perform(Trial.of(model, inputs), edit_of(record), optimizer=optimizer, tensors=tensors)


def base_of(model: PretrainedModel) -> tuple[dict[str, str], bool]:
    """Digests of the tensors that need no saving, because the base has them, and whether its source gives that base.

    The base is the model as it is, or as it was before its edits. Tensors in whose place a layer was made are left out:
    they do not come from the base, whatever their numbers.
    """
    log = edit_log(model)
    if log is None:
        digests = base_digests(model)
        return digests, is_as_loaded(model, digests)
    made = {
        id(tensor)
        for applied in log.applied
        for layer in applied.changes.made.values()
        for tensor in (*layer.parameters(), *layer.buffers())
    }
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    own = {base_name(name) for name, tensor in named if id(tensor) in made}
    kept = {name: digest for name, digest in log.before.digests.items() if name not in own}
    return kept, log.before.as_loaded


def put_aside(model: nn.Module) -> dict[str, Tensor]:
    """The numbers of all that edits took out of the model, by names that begin with PUT_ASIDE."""
    log = edit_log(model)
    return {
        f"{PUT_ASIDE}{number}.{name}": tensor
        for number, applied in enumerate([] if log is None else log.applied)
        for name, tensor in applied.changes.put_aside(model).items()
    }


def restore_edits(
    model: PretrainedModel, records: Sequence[Mapping[str, Any]], aside: Mapping[str, Tensor] | None
) -> None:
    """Do a saved model's edits on its base, whose tensors come afterwards; nothing is tried out.

    aside: what put_aside gave; None where the base's own numbers are those.
    """
    if not records:
        return
    log = EditLog(_before_edits(model))
    for record in records:
        changes = Changes({})
        edit_of(record).apply(model, changes)
        log.applied.append(Applied(record, {}, changes))
    model.edits = log
    for number, applied in enumerate(log.applied if aside is not None else []):
        start = f"{PUT_ASIDE}{number}."
        own = {name.removeprefix(start): tensor for name, tensor in (aside or {}).items() if name.startswith(start)}
        applied.changes.get_back(model, own)


def record_of(edit: Edit) -> dict[str, Any]:
    """An edit as JSON values."""
    name = next(name for name, kind in EDITS.items() if kind is type(edit))
    return {_NAME: name, **asdict(edit)}  # type: ignore[call-overload]


def edit_of(record: Mapping[str, Any]) -> Edit:
    """The edit of a record. Raises UnknownNameError for a kind that is not known, EditError for other arguments."""
    kind = EDITS[str(record.get(_NAME))]
    arguments = {name: value for name, value in record.items() if name != _NAME}
    try:
        edit: Edit = kind(**arguments)
    except TypeError as error:
        raise EditError(f"a record of {record[_NAME]} holds {', '.join(arguments)}, which it does not take.") from error
    return edit


def edit_log(model: nn.Module) -> EditLog | None:
    """The model's edits; None where there are none."""
    log = getattr(model, "edits", None)
    return log if isinstance(log, EditLog) else None


def shown(model: nn.Module, names: Sequence[str], most: int = 4) -> str:
    """Layers by the names that users write, at most so many of them."""
    few = ", ".join(repr(display_name(model, name)) for name in names[:most])
    return few + (f" and {len(names) - most} more" if len(names) > most else "")


def _before_edits(model: nn.Module) -> BeforeEdits:
    state = {base_name(name): tensor for name, tensor in model.state_dict().items()}
    digests = base_digests(model)
    return BeforeEdits(
        shapes={name: tuple(tensor.shape) for name, tensor in state.items()},
        digests=digests,
        as_loaded=isinstance(model, PretrainedModel) and is_as_loaded(model, digests),
        preprocess=getattr(model, "preprocess", None),
    )


def _slots(model: nn.Module) -> dict[int, list[str]]:
    """Id of each parameter -> all names that it has."""
    found: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found.setdefault(id(parameter), []).append(name)
    return found


def _check_head(trial: Trial, edit: Edit) -> None:
    """Raise EditError for an edit of a head that was attached, which loading would build anew behind it."""
    if getattr(trial.model, "head_record", None) is None:
        return
    before, after = (repr(model.get_submodule("head")) for model in (trial.model, trial.twin))
    if before != after:
        raise EditError(
            f"{edit.describe()} changes a head that was attached; attach another one with attach_head instead. The "
            "model is as it was."
        )


def _check_ties(before: Mapping[int, list[str]], twin: nn.Module, edit: Edit) -> None:
    """Raise EditError where an edit takes one of two layers that share a parameter and leaves the other."""
    after = Counter(id(parameter) for _, parameter in twin.named_parameters(remove_duplicate=False))
    for identity, names in before.items():
        if 0 < after[identity] < len(names):
            layers = [name.rpartition(".")[0] for name in names]
            raise EditError(
                f"{edit.describe()} would break a tie: {shown(twin, layers)} share one parameter. Edit both in one "
                "call, or change the vocabulary of both with resize_vocabulary. The model is as it was."
            )
