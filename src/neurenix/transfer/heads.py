"""A new head for a new task, the same for the same seed."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader

from ..data import DataLoader, all_targets, as_dataset, label_names
from ..errors import ConfigurationError
from ..metrics import TaskKind
from ..models import PretrainedModel
from ..nn import TaskHead, build_head
from ..training import LOSSES
from .fit_settings import OWN, FitSettings


def task_of(head: nn.Module, settings: FitSettings) -> TaskKind:
    """What a model with this head is asked under these settings, whose loss is known."""
    if settings.loss == OWN:
        return cast(TaskKind, cast(TaskHead, head).task)
    return LOSSES[str(settings.loss)].task


def has_head(model: PretrainedModel, settings: FitSettings) -> bool:
    """Whether the model has a head that can stay: for its own losses, or one that answers once for a sample."""
    if isinstance(model.head, TaskHead):
        return settings.loss == OWN
    return any(isinstance(module, nn.Linear) for module in model.head.modules())


def outputs_needed(data: Any, task: str) -> int:
    """How many outputs a head needs for these data. Raises ConfigurationError where they do not tell."""
    dataset = as_dataset(data.dataset if isinstance(data, (DataLoader, TorchDataLoader)) else data)
    names = label_names(dataset)
    if names:
        return len(names)
    targets = all_targets(dataset)
    if targets.ndim > 1:
        return int(targets[0].size)
    if task != "multi_class":
        return 1
    if targets.dtype.kind not in "iu" or not len(targets):
        raise ConfigurationError(
            f"the targets are no class numbers ({targets.dtype}), so they do not tell how many outputs the head needs; "
            "give num_classes."
        )
    return int(targets.max()) + 1


def install_head(model: PretrainedModel, settings: FitSettings) -> None:
    """Put the head that the settings ask for on the model; with num_classes=None its own one stays."""
    if settings.num_classes is None:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if settings.loss == OWN:
            model.replace_head(cast(TaskHead, model.head).for_classes(settings.num_classes))
            return
        head = build_head(
            model.feature_size,
            settings.num_classes,
            hidden_sizes=settings.head_hidden_sizes,
            activation=settings.head_activation,
            dropout_rate=settings.dropout_rate,
        )
    model.replace_head(head)
