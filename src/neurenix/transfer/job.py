"""One fit described so that another process can tell whether it is asked for the same one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Batch, DataLoader, known_targets
from ..models import PretrainedModel
from ..storage import tensor_digest
from ..training import START

_SHOWN = 16  # hex digits


def describe_fit(
    model: PretrainedModel,
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, Any],
    data: Mapping[str, Any],
    epochs: int,
) -> dict[str, Any]:
    """Everything that decides the result but for the machine: where it starts, what it reads, how it learns."""
    return {
        "model": model.name,
        START: _state_digest(model, optimizer),
        **settings,
        **data,
        "epochs": epochs,
    }


def describe_data(name: str, loader: DataLoader | None, first: Batch | None) -> dict[str, Any]:
    """How many samples, which targets, and what the first batch holds once it is transformed and augmented.

    Not every file is read for this: a change of one image in the middle of a folder is not seen.
    """
    if loader is None or first is None:
        return {f"{name} data": None}
    return {
        f"{name} samples": len(loader.dataset),
        f"{name} batch size": loader.batch_size,
        f"{name} targets": _targets_digest(loader.dataset),
        f"first {name} batch": _batch_digest(first),
    }


def _state_digest(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}{tensor_digest(tensor)}".encode())
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            content = tensor_digest(value) if isinstance(value, Tensor) else repr(value)
            digest.update(f"{name}{key}{content}".encode())
    return digest.hexdigest()[:_SHOWN]


def _targets_digest(dataset: Any) -> str | None:
    targets = known_targets(dataset)
    if targets is None or targets.dtype == object:
        return None
    return hashlib.sha256(targets.tobytes()).hexdigest()[:_SHOWN]


def _batch_digest(batch: Batch) -> str:
    digest = hashlib.sha256()
    for values in (batch.inputs, batch.targets):
        named = values if isinstance(values, Mapping) else {} if values is None else {"": values}
        for name, tensor in sorted(named.items()):
            digest.update(f"{name}{tensor_digest(tensor)}".encode())
    return digest.hexdigest()[:_SHOWN]
