"""Which layers of a trunk give maps, found by running it on a small image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor, nn

from ...errors import ConfigurationError, NeurenixError
from ...models import PretrainedModel, match_layers
from ...nn import evaluating
from ...nn.wrapping import tensor_of
from ._expected_images import expected_size
from ._pyramid import Layout, Level, Pyramid, octave

_NEEDED = "a head for masks or boxes needs maps (n, channels, height, width), or tokens that lie in a grid"
_SMALL = 192  # pixels: 1, 2, 3, 4, 6, 8, 12, 16, 24, 32 and 64 divide it, so that strides come out whole
_COARSE = 32  # pixels; a map of a larger stride has too few places on a small image
_USUAL = (_SMALL, 224, 64, 96, 128, 32, 256, 384, 448, 512, 518)  # sides for networks of which none is known
_MOST_PREFIX = 16  # tokens before the grid, in networks that do not say how many
_UNFIT = (RuntimeError, ValueError, AssertionError, TypeError, IndexError, NeurenixError)
_Shapes = dict[str, tuple[int, ...]]


def measure(model: PretrainedModel) -> Pyramid:
    """The maps inside a model's trunk: of each doubling of the stride the last one that its stages give.

    A stage that doubles the stride more than once, or gives something else than a map, is looked into. A forward pass
    in evaluation mode, which changes nothing; further ones where the network refuses the size of the image, or where
    its maps are no whole part of the image.
    Raises ConfigurationError for a trunk that reads no images, or gives no maps.
    """
    shapes, size = _output_shapes(model)
    levels = {name: level for name in shapes if (level := _level(name, shapes, size, model)) is not None}
    maps = {name: level for name, level in levels.items() if level.layout != "tokens"}
    if any(_is_doubtful(level, shapes, size) for level in maps.values()):
        levels |= _remeasured(model, maps, shapes, size)
    places = {name: place for place, name in enumerate(shapes)}
    run = _Run(
        seen={name: _Seen(level=level, place=places[name]) for name, level in levels.items()},
        vectors=frozenset(name for name, shape in shapes.items() if shape and name not in levels),
        names=list(dict(model.trunk.named_modules())),
    )
    stages = _stages(model)
    found = list(run.last_of_each(stages, {}).values())
    if not found:
        raise ConfigurationError(f"{model.name} computes nothing of the kind: {_NEEDED}.")
    whole = [run.seen[name] for name in stages if name in run.seen]
    return Pyramid(
        levels=tuple(sorted((one.level for one in found), key=lambda level: level.stride)),
        last=max(whole or found, key=lambda one: one.place).level,
    )


@final
@dataclass(frozen=True, kw_only=True)
class _Seen:
    level: Level
    place: int  # in the order of computation


@final
@dataclass(frozen=True, kw_only=True)
class _Run:
    """What a trunk's modules gave. vectors: those that gave a tensor which is no map. names: of all modules."""

    seen: Mapping[str, _Seen]
    vectors: frozenset[str]
    names: Sequence[str]

    def last_of_each(self, parts: Sequence[str], before: Mapping[int, _Seen]) -> dict[int, _Seen]:
        """The last map of each doubling of the stride in some parts. before: those of the parts before them."""
        found = dict(before)
        for part in parts:
            own = self.seen.get(part)
            entering = octave(max(found.values(), key=lambda one: one.place).level.stride) if found else 0
            if own is None or octave(own.level.stride) - entering > 1:
                inside = self.last_of_each([name for name in self.names if _is_child(name, part)], found)
                found = inside | found if part in self.vectors else inside  # what pools a map is not a later one
            if own is not None:
                found[octave(own.level.stride)] = own
        return found


def _is_child(name: str, parent: str) -> bool:
    above, _, own = name.rpartition(".")
    return above == parent and bool(own)


def _stages(model: PretrainedModel) -> list[str]:
    """The trunk's parts by their names below it; where none are declared the trunk itself."""
    modules = dict(model.named_modules())
    qualified = [name for name in match_layers(model, list(model.stages)) if name in modules]
    return [name.removeprefix("trunk").removeprefix(".") for name in qualified if name.startswith("trunk")] or [""]


def _level(name: str, shapes: _Shapes, size: tuple[int, int], model: PretrainedModel) -> Level | None:
    """What a module's output is for an image (1, c, *size); None where it is no map."""
    shape = shapes[name]
    if len(shape) == 3 and shape[0] == 1:
        known = model.architecture is not None
        prefixes = [model.pool.prefix_tokens] if known else range(_MOST_PREFIX + 1)
        strides = [stride for prefix in prefixes if (stride := _token_stride(shape[1] - prefix, size))]
        return Level(layer=name, channels=shape[2], stride=strides[0], layout="tokens") if strides else None
    if len(shape) != 4 or shape[0] != 1 or _is_attention(shape, shapes):
        return None
    forms: list[tuple[Layout, Sequence[int], int]] = [
        ("maps", shape[2:], shape[1]),
        ("channels_last", shape[1:3], shape[3]),
    ]
    for layout, sides, channels in reversed(forms) if model.pool.channels_last else forms:
        stride = _map_stride(sides, size)
        if stride is not None:
            return Level(layer=name, channels=channels, stride=stride, layout=layout)
    return None


def _is_attention(shape: tuple[int, ...], shapes: _Shapes) -> bool:
    """Whether these are weights between all tokens, (1, heads, tokens, tokens)."""
    return shape[2] == shape[3] and any(len(other) == 3 and other[1] == shape[3] for other in shapes.values())


def _map_stride(sides: Sequence[int], size: tuple[int, int]) -> int | None:
    """Pixels between places of a map with these sides; a quarter may be lost at borders that are not filled up."""
    if min(sides) < 2:
        return None
    strides = {max(1, round(pixels / side)) for side, pixels in zip(sides, size, strict=True)}
    off = max(
        abs(side * stride - pixels) / pixels for side, pixels in zip(sides, size, strict=True) for stride in strides
    )
    return strides.pop() if len(strides) == 1 and off <= 1 / 4 else None


def _token_stride(tokens: int, size: tuple[int, int]) -> int | None:
    """Side of the squares that an image is cut into, so that there are as many as tokens."""
    if tokens < 2:
        return None
    stride = round(math.sqrt(size[0] * size[1] / tokens))
    whole = stride > 0 and size[0] % stride == size[1] % stride == 0
    return stride if whole and size[0] * size[1] == tokens * stride**2 else None


def _sides(level: Level, shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = shape[2:] if level.layout == "maps" else shape[1:3]
    return height, width


def _is_doubtful(level: Level, shapes: _Shapes, size: tuple[int, int]) -> bool:
    """Whether the image may not be a whole number of strides, as without filling at borders, or where it is small."""
    height, width = _sides(level, shapes[level.layer])
    return level.stride > _COARSE or (height * level.stride, width * level.stride) != size


def _remeasured(
    model: PretrainedModel, levels: Mapping[str, Level], shapes: _Shapes, size: tuple[int, int]
) -> dict[str, Level]:
    """The levels with strides as a larger image has them; as they are where the network reads none."""
    larger = (size[0] + _SMALL, size[1] + _SMALL)
    try:
        grown = _shapes_of(model, _example(model, larger))
    except _UNFIT:
        return dict(levels)
    found = {}
    for name, level in levels.items():
        before, after = (_sides(level, some.get(name, shapes[name]))[0] for some in (shapes, grown))
        whole = larger[0] % after == 0
        stride = larger[0] // after if whole or after == before else round(_SMALL / (after - before))
        found[name] = replace(level, stride=stride)
    return found


def _output_shapes(model: PretrainedModel) -> tuple[_Shapes, tuple[int, int]]:
    """Shapes that layers called once give, by name in the order of computation, and the example's (height, width)."""
    if model.domain not in ("vision", "custom"):
        raise ConfigurationError(f"{model.name} is a model of domain {model.domain!r}; {_NEEDED}, of images.")
    reason: Exception | None = None
    for example in _examples(model):
        try:
            return _shapes_of(model, example), (example.shape[2], example.shape[3])
        except _UNFIT as error:
            reason = reason if isinstance(reason, NeurenixError) else error
    raise ConfigurationError(f"{model.name} read none of the images that were tried ({reason}); {_NEEDED}, of images.")


@torch.no_grad()
def _shapes_of(model: PretrainedModel, example: Tensor) -> _Shapes:
    """Shape of what each module gives that is called once, by its name; () where that is no tensor."""
    found: dict[str, list[tuple[int, ...]]] = {}

    def keeping(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, arguments: Any, output: Any) -> None:
            first = tensor_of(output)
            found.setdefault(name, []).append(tuple(first.shape) if isinstance(first, Tensor) else ())

        return keep

    handles = [module.register_forward_hook(keeping(name)) for name, module in model.trunk.named_modules()]
    try:
        with evaluating(model), torch.random.fork_rng(devices=[]):
            model.trunk(example)
    finally:
        for handle in handles:
            handle.remove()
    return {name: shapes[0] for name, shapes in found.items() if len(shapes) == 1}


def _examples(model: PretrainedModel) -> Iterator[Tensor]:
    """Images for a model, the best first."""
    own = expected_size(model.preprocess)
    if own is None:
        sizes = [(side, side) for side in _USUAL]
    else:
        sizes = [(_SMALL, _SMALL), own] if min(own) >= _SMALL else [own]
    for size in sizes:
        yield _example(model, size)


def _example(model: PretrainedModel, size: tuple[int, int]) -> Tensor:
    """An empty image (1, channels, *size)."""
    like = next((part for part in model.trunk.parameters() if part.is_floating_point()), torch.empty(0))
    return torch.zeros(1, _channels(model), *size, device=like.device, dtype=like.dtype)


def _channels(model: PretrainedModel) -> int:
    """Those of the images that a model reads: as its preprocessing says, or its first convolution."""
    if model.preprocess is not None:
        return int(getattr(model.preprocess.spec, "channels", 3))
    first = next((part for part in model.trunk.modules() if isinstance(part, nn.Conv2d)), None)
    return first.in_channels if first is not None else 3
