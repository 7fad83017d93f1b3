"""A new head for a new task, the same for the same seed."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import ConfigurationError
from ..models import PretrainedModel
from ..nn import build_head
from .finetune_settings import FinetuneSettings


def install_head(model: PretrainedModel, settings: FinetuneSettings) -> None:
    """Put the head that the settings ask for on the model; with num_classes=None its own one stays.

    Raises ConfigurationError when it has none to keep.
    """
    if settings.num_classes is None:
        if not any(isinstance(module, nn.Linear) for module in model.head.modules()):
            raise ConfigurationError("this model has no head; give num_classes, the outputs that you need.")
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        head = build_head(
            model.feature_size,
            settings.num_classes,
            hidden_sizes=settings.head_hidden_sizes,
            activation=settings.head_activation,
            dropout_rate=settings.dropout_rate,
        )
    model.replace_head(head)
