"""What of a model a method trains, beyond what the tuner already keeps frozen."""

from __future__ import annotations

from ...errors import ConfigurationError
from ...models import PretrainedModel, covered
from ..heads._starts import last_linear
from ..tuners.places import is_norm


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
    norms = [name for name, module in model.named_modules() if is_norm(module)]
    if not norms:
        found = ", ".join(sorted({type(part).__name__ for part in model.modules() if "Norm" in type(part).__name__}))
        raise ConfigurationError(
            f"this method learns the scales and shifts of normalisation layers, and {model.name} has none (its norms: "
            f"{found or 'none'}). Take 'shot', which learns all of the body, or a model with norms."
        )
    names = [*(name for name, _ in model.named_modules() if name), *(name for name, _ in model.named_parameters())]
    return tuple(
        name for name in names if not covered(name, norms) and not any(norm.startswith(f"{name}.") for norm in norms)
    )
