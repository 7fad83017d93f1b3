"""Fewer blocks: those that change least of what they are given are taken out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigurationError, EditError
from ...models import display_name
from ...nn import evaluating
from ...nn.wrapping import tensor_of
from ._edit import Trial, perform
from ._places import places_of
from .remove_layer import removal

_CONTAINERS = (nn.Sequential, nn.ModuleList)


def block_influence(model: nn.Module, inputs: Any) -> dict[str, float]:
    """How much each residual block changes of what it is given: 1 - mean cosine, at least 0, by name and in order.

    Men et al., ShortGPT: Layers in Large Language Models are More Redundant Than You Expect, 2024, eq. 1: of tokens
    (n, t, d) over their d features, of maps (n, c, h, w) over their c channels.
    inputs: a batch that the model reads. Blocks are layers that stand in a sequence, hold others, and keep the shape.
    Raises EditError where there are none.
    """
    return _influence(Trial.of(model, inputs))


def _influence(trial: Trial) -> dict[str, float]:
    blocks = _blocks(trial)
    if not blocks:
        raise EditError("the model has no sequence of blocks that give what they are given in the same shape.")
    found: dict[str, float] = {}

    def measuring(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, named: Any, output: Any) -> None:
            given = next(value for value in (*arguments, *named.values()) if isinstance(value, Tensor))
            found[name] = _change(given, tensor_of(output))

        return hook

    handles = [
        trial.twin.get_submodule(name).register_forward_hook(measuring(name), with_kwargs=True) for name in blocks
    ]
    try:
        with torch.no_grad(), evaluating(trial.twin):
            trial.twin(trial.inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {display_name(trial.model, name): found[name] for name in blocks}


def prune_depth(
    model: nn.Module, count: int, inputs: Any, *, optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Any]:
    """Take out the `count` blocks of least influence; gives the edit's record. All other layers keep their names.

    inputs: a batch that the model reads, of the data that it will see. See block_influence, remove_layer.
    Raises ConfigurationError where the model has not more than so many blocks.
    """
    trial = Trial.of(model, inputs)
    influence = _influence(trial)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 < count < len(influence):
        raise ConfigurationError(
            f"count={count!r}; the model has {len(influence)} blocks, of which 1 to {len(influence) - 1} can go."
        )
    least = sorted(influence, key=lambda name: influence[name])[:count]
    return perform(trial, removal(trial, places_of(model, least), bridge=False), optimizer=optimizer)


def _blocks(trial: Trial) -> list[str]:
    """Qualified names of the outermost blocks."""
    flow, modules = trial.before, dict(trial.twin.named_modules())
    found: list[str] = []
    for name, module in modules.items():
        path, _, _ = name.rpartition(".")
        is_block = isinstance(modules.get(path), _CONTAINERS) and any(module.children())
        holds_blocks = isinstance(module, _CONTAINERS)
        if is_block and not holds_blocks and not any(name.startswith(f"{outer}.") for outer in found):
            if name in flow.given and flow.given[name] == flow.gave.get(name):
                found.append(name)
    return found


def _change(given: Tensor, gave: Tensor) -> float:
    axis = 1 if given.ndim == 4 else -1
    return max(0.0, 1.0 - float(functional.cosine_similarity(given.float(), gave.float(), dim=axis).mean()))
