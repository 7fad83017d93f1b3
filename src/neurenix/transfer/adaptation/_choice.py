"""The method that an adapter is asked for: one of ours with its settings, its name, or its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ...errors import ConfigurationError
from .method import METHODS, AdaptationMethod, TermMethod, WholeMethod, method_from

MethodChoice: TypeAlias = AdaptationMethod | str | Mapping[str, Any]


def chosen_method(method: Any) -> AdaptationMethod:
    """The method itself. Raises UnknownNameError, or ConfigurationError for what is none."""
    if isinstance(method, (TermMethod, WholeMethod)):
        return method
    if isinstance(method, str):
        found: AdaptationMethod = METHODS[method]()
        return found
    if isinstance(method, Mapping) and "kind" in method:
        return method_from(method)
    raise ConfigurationError(
        f"method={method!r} is no method of domain adaptation; give a name ({', '.join(METHODS)}), or one of "
        "neurenix.transfer.adaptation.methods with its settings."
    )


def list_adaptation_methods(family: str | None = None) -> list[str]:
    """Names of the methods, sorted.

    family: "adversarial", "alignment", "self_supervised", "self_training", "source_free", "test_time", "gradual" or
        "classical"; None for all.
    """
    families = {method.family for method in METHODS.values()}
    if family is not None and family not in families:
        raise ConfigurationError(f"family={family!r}; the methods here are: {', '.join(sorted(families))}.")
    return sorted(name for name, method in METHODS.items() if family in (None, method.family))
