"""The normalisation layers of a model."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ....errors import ConfigurationError
from ....models import PretrainedModel


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Batch norms that keep statistics of what they have seen, by qualified name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


def check_has_scales(model: PretrainedModel, method: str) -> None:
    """Raise ConfigurationError for a model none of whose norms has a scale or a shift."""
    norms = [part for part in model.modules() if "Norm" in type(part).__name__]
    if not any(True for part in norms for _ in part.parameters(recurse=False)):
        found = ", ".join(sorted({type(part).__name__ for part in norms})) or "none"
        raise ConfigurationError(
            f"{method} learns the scales and shifts of normalisation layers, and {model.name} has none (its norms: "
            f"{found}). Take 'shot', which learns all of the body, or a model with norms."
        )
