"""Optimizers by name, over parameter groups that are fixed from the first step on.

Every parameter is in a group from the start, also the frozen ones: without a gradient they are skipped, and
when they are unfrozen the moments of the others are still there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import ConfigurationError
from ..models import PretrainedModel, display_name, match_layers
from ..registry import Registry

Groups = list[dict[str, Any]]
OPTIMIZERS: Registry[Callable[[Groups], torch.optim.Optimizer]] = Registry("optimizer")

OPTIMIZERS.add("adam", lambda groups: torch.optim.Adam(groups, fused=_can_fuse(groups)))
OPTIMIZERS.add("adamw", lambda groups: torch.optim.AdamW(groups, fused=_can_fuse(groups)))
OPTIMIZERS.add("sgd", lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True))
OPTIMIZERS.add("rmsprop", lambda groups: torch.optim.RMSprop(groups))
OPTIMIZERS.add("nadam", lambda groups: torch.optim.NAdam(groups))
OPTIMIZERS.add("radam", lambda groups: torch.optim.RAdam(groups))
OPTIMIZERS.add("adagrad", lambda groups: torch.optim.Adagrad(groups))
OPTIMIZERS.add("adafactor", lambda groups: torch.optim.Adafactor(groups))


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Learning rates: `body` for the trunk, `head` for the head, and per layer where the caller said so.

    layers: pattern -> rate; the longest matching layer wins. decay: factor per stage from the head downwards.
    """

    body: float
    head: float
    layers: Mapping[str, float]
    decay: float = 1.0


def resolve_rates(
    model: PretrainedModel, learning_rate: float | None, layers: Mapping[str, float] | float | None
) -> Rates:
    """What the arguments `learning_rate` and `layer_learning_rates` mean for this model.

    Without a learning rate the head takes 1e-3 and the pretrained body a tenth of it, or 5e-5 in transformers,
    whose weights a larger step destroys (Devlin et al. 2019, appendix A.3; Steiner et al. 2022, table 4).
    """
    check_rate(learning_rate)
    for rate in layers.values() if isinstance(layers, Mapping) else ():
        if not 0 <= rate < float("inf"):
            raise ConfigurationError(f"a learning rate of {rate} cannot train; give a small number such as 1e-3.")
    decay = 1.0 if layers is None or isinstance(layers, Mapping) else float(layers)
    if not 0 < decay <= 1:
        raise ConfigurationError(
            f"layer_learning_rates={layers}; a single number is the factor from one stage to the one below it, "
            "above 0 and at most 1 (0.75, say)."
        )
    body = learning_rate if learning_rate is not None else _default_body_rate(model)
    head = learning_rate if learning_rate is not None else 1e-3
    return Rates(body=body, head=head, layers=layers if isinstance(layers, Mapping) else {}, decay=decay)


def check_rate(learning_rate: float | None) -> None:
    """Raise ConfigurationError for a learning rate that cannot train; None stands for a default."""
    if learning_rate is not None and not 0 <= learning_rate < float("inf"):
        raise ConfigurationError(f"a learning rate of {learning_rate} cannot train; give a small number such as 1e-3.")
    if learning_rate == 0:
        raise ConfigurationError("learning_rate=0 trains nothing; name layers that are to stay in freeze_layers.")


def build_optimizer(model: PretrainedModel, name: str, rates: Rates, weight_decay: float) -> torch.optim.Optimizer:
    """One optimizer over all parameters; groups carry `name` and `base_lr`.

    Weight decay leaves out vectors (biases, norm scales), which it would pull away from what they were trained to.
    """
    if weight_decay < 0:
        raise ConfigurationError(f"weight_decay={weight_decay}; it is 0 or a small positive number.")
    builder = OPTIMIZERS[name]
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    rate_of = _rate_finder(model, rates)
    for qualified, parameter in model.named_parameters():
        layer, rate = rate_of(qualified)
        decays = parameter.ndim > 1
        group = groups.setdefault(
            (layer, decays),
            {"params": [], "name": layer, "lr": rate, "base_lr": rate, "weight_decay": weight_decay if decays else 0.0},
        )
        group["params"].append(parameter)
    return builder(list(groups.values()))


def _can_fuse(groups: Groups) -> bool | None:
    """True for one kernel over all parameters; None leaves the choice to torch."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    fits = all(part.is_floating_point() and part.device.type in ("cpu", "cuda") for part in parameters)
    return True if fits else None


def _default_body_rate(model: PretrainedModel) -> float:
    is_transformer = model.architecture is not None and "attention.query" in model.architecture.roles
    return 5e-5 if is_transformer else 1e-4


def _rate_finder(model: PretrainedModel, rates: Rates) -> Callable[[str], tuple[str, float]]:
    """Qualified parameter name -> (display name of its group, learning rate)."""
    named: dict[str, float] = {}
    for pattern, rate in rates.layers.items():
        named |= {layer: rate for layer in match_layers(model, pattern)}
    depths = stage_depths(model)

    def find(qualified: str) -> tuple[str, float]:
        layer = _longest_cover(qualified, named)
        if layer is not None:
            return display_name(model, layer), named[layer]
        stage = _longest_cover(qualified, depths) or qualified
        base = rates.head if stage == "head" else rates.body
        return display_name(model, stage), base * rates.decay ** depths.get(stage, len(model.stages) + 1)

    return find


def stage_depths(model: PretrainedModel) -> dict[str, int]:
    """Qualified stage -> its distance from the head; the head itself is at 0."""
    stages = [match_layers(model, stage)[0] for stage in model.stages]
    return {"head": 0} | {stage: depth for depth, stage in enumerate(reversed(stages), start=1)}


def _longest_cover(name: str, layers: Iterable[str]) -> str | None:
    covering = [layer for layer in layers if name == layer or name.startswith(f"{layer}.")]
    return max(covering, key=len) if covering else None


def trainable_parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The parameters in the optimizer that take gradients now."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.requires_grad]
