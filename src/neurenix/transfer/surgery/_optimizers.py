"""An optimizer that goes with a model's edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from ...errors import ConfigurationError

Successors = Sequence[tuple[nn.Parameter, nn.Parameter]]


@final
@dataclass(frozen=True)
class Displaced:
    """What an optimizer knew of a parameter that is gone: its group and its moments."""

    parameter: nn.Parameter
    group: int
    state: dict[str, Any]


def check_optimizer(optimizer: torch.optim.Optimizer | None, model: nn.Module) -> None:
    """Raise ConfigurationError for an optimizer that trains no parameter of this model."""
    if optimizer is None:
        return
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
        raise ConfigurationError(
            "the optimizer given trains no parameter of this model, so it cannot follow the edit; give the one that "
            "was made for this model, or none."
        )


def follow(
    optimizer: torch.optim.Optimizer,
    before: Sequence[nn.Parameter],
    model: nn.Module,
    successors: Successors = (),
    known: Sequence[Displaced] = (),
) -> list[Displaced]:
    """Make an optimizer train what the model has now: moments of all that stays are kept.

    before: the model's parameters before the edit. successors: (old, new) of resized ones, whose moments are resized
    with them, new rows beginning with zeros. known: what it knew of parameters that come back. Parameters that are new
    join the group of the one in front of them.
    """
    old = {id(parameter) for parameter in before}
    now = list(model.parameters())
    present = {id(parameter) for parameter in now}
    displaced = []
    replacement = {id(one): other for one, other in successors}
    for number, group in enumerate(optimizer.param_groups):
        kept: list[nn.Parameter] = []
        for parameter in group["params"]:
            if id(parameter) in present or id(parameter) not in old:
                kept.append(parameter)
                continue
            state = optimizer.state.pop(parameter, {})
            displaced.append(Displaced(parameter, number, state))
            successor = replacement.get(id(parameter))
            if successor is not None and id(successor) in present:
                kept.append(successor)
                if state:
                    optimizer.state[successor] = _resized(state, parameter, successor)
        group["params"] = kept
    _join(optimizer, now, old, {id(entry.parameter): entry for entry in known})
    return displaced


def _join(
    optimizer: torch.optim.Optimizer, now: Sequence[nn.Parameter], old: set[int], known: dict[int, Displaced]
) -> None:
    group_of = {
        id(parameter): number for number, group in enumerate(optimizer.param_groups) for parameter in group["params"]
    }
    last = 0
    for parameter in now:
        if id(parameter) in group_of:
            last = group_of[id(parameter)]
        elif id(parameter) in known:
            entry = known[id(parameter)]
            optimizer.param_groups[entry.group]["params"].append(parameter)
            if entry.state:
                optimizer.state[parameter] = entry.state
        elif id(parameter) not in old:
            optimizer.param_groups[last]["params"].append(parameter)


def _resized(state: dict[str, Any], old: nn.Parameter, new: nn.Parameter) -> dict[str, Any]:
    return {
        key: _overlapping(value, new) if isinstance(value, Tensor) and value.shape == old.shape else value
        for key, value in state.items()
    }


def _overlapping(values: Tensor, like: Tensor) -> Tensor:
    """The values in the shape of another tensor, zeros where they have none."""
    grown = torch.zeros(like.shape, dtype=values.dtype, device=values.device)
    common = tuple(slice(min(one, other)) for one, other in zip(values.shape, like.shape, strict=True))
    grown[common] = values[common]
    return grown
