"""Solve a model's linear head on the features of a loader, before the first gradient step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..data import DataLoader
from ..devices import Precision, autocast, resolve_precision
from ..errors import ConfigurationError
from ..metrics import TaskKind
from ..models import PretrainedModel
from ..training import classification_head, inference_mode_of, labelled, ridge_head


def solve_head(model: PretrainedModel, loader: DataLoader, task: TaskKind, precision: Precision) -> None:
    """Set weight and bias of the head's one linear layer; dropout before it stays.

    Raises ConfigurationError for heads with hidden layers and for several labels per sample, which have no closed form.
    """
    linear = the_linear_layer(model.head)
    if linear is None or task == "multi_label":
        raise ConfigurationError(
            "strategy='lp_ft' solves a linear head for one label or value per sample in closed form; leave "
            "head_hidden_sizes empty and use such a loss, or take strategy='progressive'."
        )
    features, targets = _features(model, loader, precision)
    if task == "multi_class":
        solved = classification_head(features, targets, linear.out_features)
    else:
        solved = ridge_head(features, targets.reshape(len(targets), -1))
    with torch.no_grad():
        linear.weight.copy_(solved.weight)
        linear.bias.copy_(solved.bias)


def the_linear_layer(head: nn.Module) -> nn.Linear | None:
    """The head's linear layer when it has exactly one."""
    linear = [module for module in head.modules() if isinstance(module, nn.Linear)]
    return linear[0] if len(linear) == 1 else None


@torch.no_grad()
def _features(model: PretrainedModel, loader: DataLoader, precision: Precision) -> tuple[Tensor, Tensor]:
    """(n, feature_size) float32 and (n, …) targets of a whole loader, on the CPU."""
    device = next(model.parameters()).device
    features, targets = [], []
    with inference_mode_of(model), autocast(device, resolve_precision(precision, device)):
        for batch in loader.batches(0):
            features.append(model.embed(batch.to(device).inputs).float().cpu())
            targets.append(labelled(batch))
    return torch.cat(features), torch.cat(targets)
