"""Which layers an edit means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

from torch import nn

from ...errors import ConfigurationError, EditError
from ...models import display_name, match_layers
from ...nn import BASE_LAYER, Extended

Which: TypeAlias = "str | Sequence[str] | type[nn.Module] | tuple[type[nn.Module], ...] | Callable[[nn.Module], bool]"


def places_of(model: nn.Module, which: Which) -> list[str]:
    """Qualified names of the layers that are meant, in model order; of nested ones the outermost.

    which: names or globs, classes, or what says yes or no to a layer.
    Raises UnknownNameError for a name of no layer, EditError where no layer is of the class or answered with yes.
    """
    modules = dict(model.named_modules())
    if isinstance(which, str) or isinstance(which, Sequence) and all(isinstance(name, str) for name in which):
        names = match_layers(model, cast("str | Sequence[str]", which))
        wrong = [name for name in names if name not in modules]
        if wrong:
            raise ConfigurationError(f"{display_name(model, wrong[0])!r} is a parameter, not a layer.")
    else:
        names = _chosen(model, which)
    outermost: list[str] = []
    for name in names:
        if not any(name.startswith(f"{outer}.") for outer in outermost):
            outermost.append(name)
    return [_innermost(name, modules) for name in outermost]


def places_within(model: nn.Module, which: Which | None, is_wanted: Callable[[nn.Module], bool]) -> list[str]:
    """Qualified names of the wanted layers among those that are meant and those in them; None means the whole model."""
    meant = None if which is None else places_of(model, which)
    return [
        name
        for name, layer in model.named_modules()
        if is_wanted(layer) and (meant is None or any(f"{name}.".startswith(f"{place}.") for place in meant))
    ]


def one_place(model: nn.Module, name: str) -> str:
    """The qualified name of one layer. Raises UnknownNameError, or ConfigurationError where it names several."""
    if not isinstance(name, str):
        raise ConfigurationError(f"a layer is named by a text such as 'layer2'; this is of type {type(name).__name__}.")
    found = places_of(model, name)
    if len(found) > 1:
        raise ConfigurationError(f"{name!r} names {len(found)} layers; one is needed here.")
    return found[0]


def extension_of(model: nn.Module, name: str) -> tuple[str, Extended] | None:
    """The nn.Extended around a layer that stands in one, or that a layer was added to, with its name."""
    path, _, _ = name.rpartition(".")
    owner = model.get_submodule(path)
    return (path, owner) if isinstance(owner, Extended) else None


def _chosen(model: nn.Module, which: Which) -> list[str]:
    if isinstance(which, type) or isinstance(which, tuple):
        kinds = which if isinstance(which, tuple) else (which,)
        if not kinds or not all(isinstance(kind, type) and issubclass(kind, nn.Module) for kind in kinds):
            raise ConfigurationError(f"{which!r} are no classes of layers; give nn.ReLU, or (nn.ReLU, nn.GELU).")
        asked: Callable[[nn.Module], bool] = lambda layer: isinstance(layer, kinds)  # noqa: E731
        shown = ", ".join(kind.__name__ for kind in kinds)
    elif callable(which):
        asked, shown = which, "that your function says yes to"
    else:
        raise ConfigurationError(
            f"layers are given by name, glob, list of names, class or a function; this is {which!r}."
        )
    names = [
        name for name, layer in model.named_modules() if name not in ("", "trunk", "trunk.module") and asked(layer)
    ]
    if not names:
        raise EditError(
            f"the model has no layer {shown}. What is called as a function in a forward method, as "
            "torch.nn.functional.relu, is no layer. neurenix.transfer.layer_names(model) lists them."
        )
    return names


def _innermost(name: str, modules: dict[str, nn.Module]) -> str:
    """The layer itself where others were added to it."""
    return f"{name}.{BASE_LAYER}" if isinstance(modules[name], Extended) else name
