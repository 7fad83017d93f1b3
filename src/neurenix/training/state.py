"""What a checkpoint holds: all that training changes, so that a fit goes on with the same bits.

Randomness needs nothing here: order, augmentation and dropout are functions of seed, epoch, step and sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..callbacks._base import Callback
from ..data import DataLoader, Skipped
from ..errors import DamagedFileError, ResumeError
from ..metrics import Metrics
from ..storage import tensor_digest
from .ema import MovingAverage
from .history import History
from .progress import Progress

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Everything with a state. base: digests of the tensors that the model was loaded with, which need no saving.

    objective: may be a module with parameters of its own.
    """

    model: nn.Module
    objective: Any
    base: Mapping[str, str]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: MovingAverage | None
    metrics: Metrics
    callbacks: Sequence[Callback]
    history: History
    train: DataLoader


def capture(parts: Parts, progress: Progress, total: Tensor) -> dict[str, Any]:
    """The state as nested JSON values and tensors. total: sum of this epoch's losses so far."""
    return {
        "format": _FORMAT,
        "progress": progress.state(),
        "total": total,
        "model": _changed(parts.model, parts.base),
        "objective": dict(parts.objective.state_dict()) if isinstance(parts.objective, nn.Module) else {},
        "optimizer": _moments(_trained_by(parts.model, parts.objective), parts.optimizer),
        "rates": [group["lr"] for group in parts.optimizer.param_groups],
        "scaler": parts.scaler.state_dict(),
        "average": parts.average.state(parts.model) if parts.average is not None else None,
        "metrics": parts.metrics.state(),
        "callbacks": [[type(callback).__name__, callback.state_dict()] for callback in parts.callbacks],
        "history": parts.history.epochs,
        "skipped": [asdict(sample) for sample in parts.train.skipped],
    }


def restore(parts: Parts, state: Mapping[str, Any]) -> tuple[Progress, Tensor]:
    """Put a captured state back, but for the callbacks'; returns progress and sum of losses."""
    if state.get("format") != _FORMAT:
        raise DamagedFileError(f"this checkpoint has format {state.get('format')!r}; known is {_FORMAT}.")
    restore_result(parts.model, parts.objective, parts.base, parts.optimizer, parts.history, state)
    for group, rate in zip(parts.optimizer.param_groups, state["rates"], strict=True):
        group["lr"] = rate
    parts.scaler.load_state_dict(state["scaler"])
    if parts.average is not None:
        parts.average.load_state(parts.model, state["average"])
    parts.metrics.load_state(state["metrics"])
    parts.train.skipped = [Skipped(**sample) for sample in state["skipped"]]
    return Progress.from_state(state["progress"]), state["total"]


def restore_result(
    model: nn.Module,
    objective: Any,
    base: Mapping[str, str],
    optimizer: torch.optim.Optimizer,
    history: History,
    state: Mapping[str, Any],
) -> None:
    """Put back what outlives a fit: the weights, the objective's too, the optimizer's moments, the history."""
    strange = [
        name
        for name, tensor in model.state_dict().items()
        if name not in state["model"] and tensor_digest(tensor) != base.get(name)
    ]
    if strange:
        raise ResumeError(
            f"the checkpoint leaves out what was not trained, but {len(strange)} of these tensors differ in this model "
            f"from what was loaded ({', '.join(strange[:3])}); load the model again and call fit on that one."
        )
    unexpected = model.load_state_dict(state["model"], strict=False).unexpected_keys
    if unexpected:
        raise DamagedFileError(f"this checkpoint is of another model: it has {unexpected[:3]}, which this one lacks.")
    if isinstance(objective, nn.Module):
        objective.load_state_dict(state["objective"])
    _put_moments(_trained_by(model, objective), optimizer, state["optimizer"])
    history.epochs[:] = state["history"]


def restore_callbacks(callbacks: Sequence[Callback], state: Mapping[str, Any]) -> None:
    """Give each callback the state of the saved one of its class, in their order; those without one start anew."""
    saved = [list(entry) for entry in state["callbacks"]]
    for callback in callbacks:
        place = next((i for i, entry in enumerate(saved) if entry[0] == type(callback).__name__), None)
        if place is not None:
            callback.load_state_dict(saved.pop(place)[1])


def _changed(model: nn.Module, base: Mapping[str, str]) -> dict[str, Tensor]:
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    state = model.state_dict()
    return {
        name: tensor for name, tensor in state.items() if name in trained or tensor_digest(tensor) != base.get(name)
    }


def _trained_by(model: nn.Module, objective: Any) -> dict[str, nn.Parameter]:
    """Name -> parameter, of the model and of an objective that has some."""
    own = objective.named_parameters(prefix="objective") if isinstance(objective, nn.Module) else ()
    return {**dict(model.named_parameters()), **dict(own)}


def _moments(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """Parameter name -> what the optimizer keeps for it."""
    return {
        name: dict(optimizer.state[parameter])
        for name, parameter in parameters.items()
        if optimizer.state.get(parameter)
    }


def _put_moments(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, moments: Mapping[str, Mapping[str, Any]]
) -> None:
    names = {id(parameter): name for name, parameter in parameters.items()}
    ordered = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    state = {place: dict(moments[name]) for place, name in enumerate(ordered) if name in moments}
    # through torch's own loading, which knows which of them belong on the parameter's device
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
