"""What of a model a method trains, beyond what the tuner already keeps frozen."""

from __future__ import annotations

from torch import nn

from ...errors import ConfigurationError
from ...models import PretrainedModel, covered
from ..heads._starts import last_linear

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.RMSNorm,
)


def frozen_beside(model: PretrainedModel, trains: str) -> tuple[str, ...]:
    """Qualified names of what stays frozen where a method trains "all", the "body" or the "norms".

    Raises ConfigurationError for a model without norms.
    """
    if trains == "all":
        return ()
    if trains == "body":
        last = last_linear(model.head)
        return tuple(name for name, module in model.named_modules() if module is last) or ("head",)
    return _all_but_norms(model)


def _all_but_norms(model: PretrainedModel) -> tuple[str, ...]:
    norms = [name for name, module in model.named_modules() if isinstance(module, _NORMS) and list(module.parameters())]
    if not norms:
        raise ConfigurationError(
            f"this method trains the scales and shifts of normalisation layers, and {model.name} has none; take "
            "another one."
        )
    names = [*(name for name, _ in model.named_modules() if name), *(name for name, _ in model.named_parameters())]
    return tuple(
        name for name in names if not covered(name, norms) and not any(norm.startswith(f"{name}.") for norm in norms)
    )
