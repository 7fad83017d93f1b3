"""The one place where layer names are understood.

A name is what the model's own library calls the part: `layer1`, `blocks.3.attn`, `encoder.layer.0`. The head
answers to its library's name (`fc`, `classifier`), where it has one, and to `head`. `*` and `?` are wildcards over the
whole dotted name. A name covers everything below it; a parameter's whole name works too.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from torch import nn

from ..errors import ConfigurationError, UnknownNameError
from ..nn import BASE_LAYER, Extended, FrameVectors
from ._pretrained_model import PretrainedModel

_AROUND = (Extended, FrameVectors)  # whose layer within answers to the name of the whole


def layer_names(model: nn.Module, depth: int | None = None) -> list[str]:
    """Names of all modules and of parameters that hang on the model itself (cls_token), as users write them."""
    named = _qualified_names(model)
    return [name for name in named if depth is None or name.count(".") < depth]


def match_layers(model: nn.Module, patterns: Sequence[str] | str) -> list[str]:
    """Qualified names (`trunk.layer1`, `head`) of the modules and parameters that the patterns name, in model order.

    Raises UnknownNameError with the nearest names for a pattern that matches nothing.
    """
    if isinstance(patterns, str):
        patterns = [patterns]
    named = _qualified_names(model)
    parameters = {display_name(model, name): name for name, _ in model.named_parameters()}
    chosen: set[str] = set()
    for pattern in patterns:
        if pattern in parameters and pattern not in named:
            chosen.add(parameters[pattern])
            continue
        found = _matches(pattern, named)
        if not found:
            raise UnknownNameError(
                f"layer in {_model_name(model)}",
                pattern,
                [name for name in named if name.count(".") < 2],
                hint="neurenix.transfer.layer_names(model) lists all.",
            )
        chosen.update(named[name] for name in found)
    return [name for name in dict.fromkeys([*named.values(), *parameters.values()]) if name in chosen]


def match_parameters(model: nn.Module, patterns: Sequence[str] | str) -> list[str]:
    """Qualified names of the parameters at or below the layers that the patterns name, in model order."""
    layers = match_layers(model, patterns)
    return [name for name, _ in model.named_parameters() if covered(name, layers)]


def covered(name: str, layers: Iterable[str]) -> bool:
    """Whether a qualified name is one of `layers` or lies below one of them."""
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)


def display_name(model: nn.Module, qualified: str) -> str:
    """A qualified name as users write it: without `trunk.`, and with the library's name for the head.

    Layers that others were added to (nn.Extended), or that read frames (nn.FrameVectors), keep the names that they had.
    """
    qualified = _without_extensions(model, qualified)
    if not isinstance(model, PretrainedModel):
        return qualified
    first, _, rest = qualified.partition(".")
    if first == "head":
        return ".".join(part for part in (model.head_name, rest) if part)
    prefix = _trunk_prefix(model)
    return qualified.removeprefix(prefix) if qualified.startswith(prefix) else qualified


def get_layer(model: nn.Module, name: str) -> nn.Module:
    """The one module that `name` names; raises when it names none, several, or a parameter."""
    found = match_layers(model, name)
    if len(found) > 1:
        raise ConfigurationError(f"{name!r} names {len(found)} layers ({', '.join(found[:4])}…); one is needed here.")
    modules = dict(model.named_modules())
    if found[0] not in modules:
        raise ConfigurationError(f"{name!r} is a parameter, not a layer.")
    return modules[found[0]]


def _without_extensions(model: nn.Module, qualified: str) -> str:
    """The name without the steps into layers that stand within an nn.Extended or nn.FrameVectors."""
    if BASE_LAYER not in qualified:
        return qualified
    kept: list[str] = []
    module: nn.Module | None = model
    for part in qualified.split("."):
        if not (part == BASE_LAYER and isinstance(module, _AROUND)):
            kept.append(part)
        module = None if module is None else module._modules.get(part)
    return ".".join(kept)


def _is_extended(model: nn.Module, name: str) -> bool:
    """Whether a name is that of the layer within an nn.Extended, which answers to the name of the whole."""
    path, _, last = name.rpartition(".")
    return last == BASE_LAYER and isinstance(model.get_submodule(path), _AROUND)


def _qualified_names(model: nn.Module) -> dict[str, str]:
    """Displayed name -> qualified name, in model order; the alias `head` comes last."""
    inner = ("", "trunk", "trunk.module")
    qualified = [name for name, _ in model.named_modules() if name not in inner and not _is_extended(model, name)]
    qualified += [name for name, _ in model.named_parameters() if "." not in display_name(model, name)]
    named = {shown: name for name in qualified if (shown := display_name(model, name))}
    if isinstance(model, PretrainedModel):
        named |= {name: name for name in qualified if name == "head" or name.startswith("head.")}
    return named


def _matches(pattern: str, named: dict[str, str]) -> list[str]:
    if any(sign in pattern for sign in "*?["):
        return [name for name in named if fnmatch.fnmatchcase(name, pattern)]
    return [pattern] if pattern in named else []


def _trunk_prefix(model: nn.Module) -> str:
    if not isinstance(model, PretrainedModel):
        return ""
    return "trunk." if model.architecture is not None else "trunk.module."


def _model_name(model: nn.Module) -> str:
    return model.name if isinstance(model, PretrainedModel) else type(model).__name__
