"""A new head for a new task, the same for the same seed."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader

from ...data import DataLoader, all_targets, as_dataset, has_tagged_words, label_names
from ...errors import ConfigurationError
from ...metrics import TaskKind
from ...models import PretrainedModel
from ...nn import TaskHead, VectorHead, build_head
from ...training import LOSSES
from ..fit_settings import FitSettings
from ._attach import put_on
from ._kind import OWN
from ._starts import last_linear


def task_of(head: nn.Module, settings: FitSettings) -> TaskKind:
    """What a model is asked under these settings, whose loss is known. head: of the model before it gets another."""
    if settings.loss == OWN:
        kind = settings.head_class()
        return cast(TaskKind, kind.task if kind else cast(TaskHead, head).task)
    return LOSSES[str(settings.loss)].task


def waits_for_head(model: PretrainedModel, settings: FitSettings) -> bool:
    """Whether only the data of the first fit will tell what head the model gets."""
    kind = settings.head_class()
    if kind is not None:
        return settings.new_head() is None
    return settings.num_classes is None and not has_head(model, settings)


def gets_new_head(settings: FitSettings) -> bool:
    """Whether the settings ask for a head in place of the model's own."""
    return settings.num_classes is not None or settings.head is not None


def has_head(model: PretrainedModel, settings: FitSettings) -> bool:
    """Whether the model has a head that can stay: for its own losses, or one that answers once for a sample."""
    if isinstance(model.head, TaskHead):
        return settings.loss == OWN
    return isinstance(model.head, VectorHead) or last_linear(model.head) is not None


def outputs_of(head: nn.Module) -> int:
    """Number of classes, labels or values that a head tells apart or gives."""
    if isinstance(head, (TaskHead, VectorHead)):
        return int(head.num_outputs)
    return int(cast(nn.Linear, last_linear(head)).out_features)


def outputs_needed(data: Any, task: str) -> int:
    """How many outputs a head needs for these data. Raises ConfigurationError where they do not tell."""
    dataset = as_dataset(data.dataset if isinstance(data, (DataLoader, TorchDataLoader)) else data)
    names = label_names(dataset)
    if names:
        return len(names)
    if task == "token_tagging" and has_tagged_words(dataset):
        return 1 + max(int(dataset[index][1]["labels"].max()) for index in range(len(dataset)))
    targets = all_targets(dataset)
    if task == "token_tagging":
        return int(targets.max()) + 1
    if targets.ndim > 1:
        return int(targets[0].size)
    if task not in ("multi_class", "ordinal"):
        return 1
    if targets.dtype.kind not in "iu" or not len(targets):
        raise ConfigurationError(
            f"the targets are no class numbers ({targets.dtype}), so they do not tell how many outputs the head needs; "
            "give num_classes."
        )
    return int(targets.max()) + 1


def install_head(model: PretrainedModel, settings: FitSettings) -> None:
    """Put the head that the settings ask for on the model; where they ask for none its own one stays."""
    kind = settings.new_head()
    if kind is not None:
        put_on(model, kind, settings.seed)
        return
    if settings.num_classes is None:
        return
    record = model.head_record
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if settings.loss == OWN:
            head = cast(TaskHead, model.head).for_classes(settings.num_classes)
            model.replace_head(head, record=record and {**record, "num_outputs": settings.num_classes})
            return
        model.replace_head(
            build_head(
                model.feature_size,
                settings.num_classes,
                hidden_sizes=settings.head_hidden_sizes,
                activation=settings.head_activation,
                dropout_rate=settings.dropout_rate,
            )
        )
