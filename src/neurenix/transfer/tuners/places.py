"""Where in a model a method finds its places: by declared roles, else by structure. No model's name is known here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from ...errors import ConfigurationError
from ...models import PretrainedModel, covered, display_name, match_layers

# modules that compute with their layers' weights themselves, so that a wrapper of such a layer would not be called
_USE_WEIGHTS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.MultiheadAttention)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Place:
    """A layer. name: qualified. width: features that it gives. maps: they are the second dimension of four."""

    name: str
    module: nn.Module
    width: int
    maps: bool


def layers_of(model: PretrainedModel, role: str, within: Sequence[str] = ()) -> list[Place]:
    """The layers of a declared role, from input to output. within: qualified names that they have to lie in or be."""
    pattern = model.architecture.roles.get(role) if model.architecture else None
    if pattern is None:
        return []
    modules = dict(model.named_modules())
    found = [name for name in match_layers(model, pattern) if not within or covered(name, within)]
    return [_place(name, modules[name]) for name in found]


def blocks(model: PretrainedModel, layers: Sequence[str] | str | int | None) -> list[Place]:
    """The residual blocks of a model from input to output, or those that `layers` chooses.

    layers: names or globs of blocks or of what holds them; a number for so many from the top; None for all.
    A block is a stage with a feed-forward part. Models that declare none are searched for layers of one class that
    follow each other, as blocks do.

    Raises ConfigurationError where there are no blocks, or none in `layers`; UnknownNameError for a wrong name.
    """
    modules = dict(model.named_modules())
    names = _declared_blocks(model) or _repeated(model)
    if not names:
        raise ConfigurationError(
            f"{model.name} has no blocks that are repeated, so there is no place for this method; use LoraTuner or "
            "Finetuner."
        )
    if isinstance(layers, int):
        if isinstance(layers, bool) or not 0 < layers <= len(names):
            raise ConfigurationError(f"layers={layers}; {model.name} has {len(names)} blocks: give 1 to {len(names)}.")
        names = names[-layers:]
    elif layers is not None:
        wanted = match_layers(model, layers)
        chosen = [name for name in names if covered(name, wanted)]
        if not chosen:
            shown = ", ".join(display_name(model, name) for name in names[:4])
            raise ConfigurationError(f"layers={layers!r} holds none of {model.name}'s blocks ({shown}, …).")
        names = chosen
    return [_place(name, modules[name]) for name in names]


def names_within(model: PretrainedModel, layers: Sequence[str] | str | int | None) -> list[str]:
    """Qualified names of what a method keeps to: the blocks that `layers` chooses, or for None the trunk."""
    return ["trunk"] if layers is None else [block.name for block in blocks(model, layers)]


def linear_layers(model: PretrainedModel) -> list[Place]:
    """Every linear and convolutional layer of the trunk that is called as a layer, from input to output."""
    return [_place(name, module) for name, module in _leaves(model) if _is_linear(module)]


def linear_and_norm_layers(model: PretrainedModel) -> list[Place]:
    """The same with the norms that have a scale of their own."""
    return [_place(name, module) for name, module in _leaves(model) if _is_linear(module) or is_norm(module)]


def is_norm(module: nn.Module) -> bool:
    """Whether a layer normalises and has learned a scale."""
    return "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None


def is_transposed(module: nn.Module) -> bool:
    """Whether a layer is transformers' Conv1D: a linear one with its weight as (inputs, outputs), as GPT-2 has it."""
    kind = type(module)
    return (kind.__module__, kind.__name__) == ("transformers.pytorch_utils", "Conv1D")


def linear(places: Sequence[Place]) -> list[Place]:
    """Those of the places that are linear layers; of a block or a convolution no single input is scaled."""
    return [place for place in places if isinstance(place.module, nn.Linear) or is_transposed(place.module)]


def input_width(module: nn.Module) -> int:
    """Features that a linear layer takes."""
    return int(module.nx if is_transposed(module) else module.in_features)  # type: ignore[arg-type]


def _declared_blocks(model: PretrainedModel) -> list[str]:
    inner = [place.name for place in layers_of(model, "mlp.out")]
    stages = [match_layers(model, stage)[0] for stage in model.stages]
    return [stage for stage in stages if any(covered(name, [stage]) for name in inner)]


def _repeated(model: PretrainedModel) -> list[str]:
    """Names of modules of one class that stand in one container, and of which each holds several layers.

    Others may stand around them, a stem and a last layer for instance, as long as they are fewer.
    """
    taken: list[str] = []
    for name, container in model.trunk.named_modules(prefix="trunk"):
        parts = dict(container.named_children())
        holds_stages = any(type(part) in _CONTAINERS for part in parts.values())  # whose blocks come later
        if not isinstance(container, _CONTAINERS) or holds_stages or covered(name, taken):
            continue
        kinds = Counter(type(part) for part in parts.values() if _layers_in(part) > 1)
        kind, count = kinds.most_common(1)[0] if kinds else (nn.Module, 0)
        if count == len(parts) or count > max(1, len(parts) // 2):
            taken += [f"{name}.{child}" for child, part in parts.items() if type(part) is kind]
    return taken


def _layers_in(module: nn.Module) -> int:
    return sum(1 for part in module.modules() if _is_linear(part))


def _leaves(model: PretrainedModel) -> Iterator[tuple[str, nn.Module]]:
    shut: list[str] = []
    for name, module in model.trunk.named_modules(prefix="trunk"):
        if covered(name, shut):
            continue
        if isinstance(module, _USE_WEIGHTS):
            shut.append(name)
        elif not list(module.children()):
            yield name, module


def _place(name: str, module: nn.Module) -> Place:
    """Width and layout are those of the last layer within, unless the module tells its out_features itself."""
    if isinstance(getattr(module, "out_features", None), int):
        return Place(name, module, cast(int, module.out_features), False)
    last = [part for part in module.modules() if _width(part) is not None]
    last = last or [part for part in module.modules() if isinstance(part, nn.Embedding)]
    if not last:
        raise ConfigurationError(f"{name} holds no layer that tells how many features it gives.")
    inner = last[-1]
    maps = isinstance(inner, (*_CONVOLUTIONS, nn.GroupNorm, nn.InstanceNorm2d)) or "BatchNorm" in type(inner).__name__
    width = inner.embedding_dim if isinstance(inner, nn.Embedding) else _width(inner)
    return Place(name, module, int(width or 0), maps)


def _width(module: Any) -> int | None:
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, _CONVOLUTIONS):
        return module.out_channels
    if is_transposed(module):
        return int(module.nf)
    weight = getattr(module, "weight", None)
    return int(weight.shape[-1]) if is_norm(module) and weight is not None else None


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, *_CONVOLUTIONS)) or is_transposed(module)
