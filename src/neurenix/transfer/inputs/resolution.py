"""Images of another size than the weights were made for."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from ...errors import ConfigurationError
from ...models import PretrainedModel
from ...models._inputs import fit_sized_input
from ...vision import ImageInput
from ..surgery._changes import Changes
from ..surgery._edit import EDITS, InputEdit, Trial, perform
from ..surgery._trial import example_inputs
from ._images import check_images, check_is_model

_PLAIN = (bool, int, float, str, tuple, list, type(None))


def adapt_resolution(
    model: PretrainedModel,
    size: int | Sequence[int],
    *,
    patch_size: int | Sequence[int] | None = None,
    window_size: int | Sequence[int] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    inputs: Any = None,
) -> dict[str, Any] | None:
    """Make a model read images of another size; gives the edit's record, None where nothing changes.

    A convolutional network keeps its weights, and only its preprocessing changes. Of a vision transformer the position
    embeddings are resampled, but for those of class and register tokens, and with patch_size the filters of its
    patches, by the pseudo-inverse of the resizing (Beyer et al., FlexiViT, CVPR 2023, eq. 2). timm does both. The model
    is changed in place; undo_edit takes it back.

    Args:
        model: of images, from load_pretrained_model.
        size: (height, width) of the new images in pixels, or one number for both.
        patch_size: side of the patches, or (height, width); None for as it is.
        window_size: of an architecture that attends in windows, in patches; None scales the windows with the image.
        optimizer: trains the model; moments of resized parameters are kept where they overlap.
        inputs: a batch that the model reads now, for a module of your own, of which nothing tells that.

    Raises:
        ConfigurationError: no size, one that the patches do not divide, or patches of a network that has none.
        EditError: the model reads no images, or cannot read ones of this size. The model is as it was.
    """
    model = check_is_model(model)
    check_images(model)
    height, width = _pair(size, "size")
    patch = None if patch_size is None else _pair(patch_size, "patch_size")
    window = None if window_size is None else _pair(window_size, "window_size")
    sized = _sized_part(model)
    _check_patches(model, sized, (height, width), patch, window)
    edit = AdaptResolution(
        size=[height, width],
        patch_size=None if patch is None else list(patch),
        window_size=None if window is None else list(window),
    )
    preprocess = model.preprocess
    same = preprocess is None or resized(preprocess, (height, width)) == preprocess
    if same and (sized is None or not list(edit.differences(sized))) and (preprocess is not None or sized is not None):
        return None
    return perform(Trial.of(model, inputs), edit, optimizer=optimizer)


@final
@EDITS.register("adapt_resolution")
@dataclass(frozen=True, kw_only=True)
class AdaptResolution(InputEdit):
    """size: (height, width) in pixels. patch_size, window_size: (height, width), or None for as they are."""

    size: Sequence[int]
    patch_size: Sequence[int] | None = None
    window_size: Sequence[int] | None = None

    def apply(self, model: nn.Module, changes: Changes) -> None:
        """See Edit."""
        sized = _sized_part(model)
        differing = [] if sized is None else list(self.differences(sized))
        preprocess = getattr(model, "preprocess", None)
        if preprocess is not None:
            changes.set(model, "preprocess", resized(preprocess, (self.size[0], self.size[1])))
        for owner, name, value in differing:
            if isinstance(value, nn.Parameter):
                changes.resize(owner, name, value)
            else:
                changes.set(owner, name, value)

    def describe(self) -> str:
        """See Edit."""
        return f"adapting to {self.size[0]} x {self.size[1]} pixels"

    def inputs_after(self, model: nn.Module, inputs: Any) -> Any:
        """See InputEdit."""
        if getattr(model, "preprocess", None) is not None:
            return example_inputs(model)
        return inputs.new_zeros(*inputs.shape[:2], *self.size)

    def differences(self, sized: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
        """(owner, attribute, new value) of all that timm's set_input_size changes; `sized` itself keeps all."""
        shared: list[Any] = [*sized.parameters(), *sized.buffers()]
        twin = copy.deepcopy(sized, {id(tensor): tensor for tensor in shared})
        wanted = {"patch_size": self.patch_size, "window_size": self.window_size}
        chosen = {name: tuple(value) for name, value in wanted.items() if value is not None}
        cast(Any, twin).set_input_size(img_size=tuple(self.size), **chosen)
        for name, part in twin.named_modules():
            yield from _changed(sized.get_submodule(name), part)


def resized(preprocess: Any, size: tuple[int, int]) -> Any:
    """The same preprocessing for images of another size."""
    spec = preprocess.spec
    if isinstance(spec, ImageInput):
        return replace(preprocess, spec=replace(spec, size=size))
    return replace(preprocess, spec=fit_sized_input(spec, (*size, getattr(spec, "channels", 3))))


def _sized_part(model: nn.Module) -> nn.Module | None:
    """The network within the model that is built for one size of images, and can be changed to another one."""
    return next((part for part in model.modules() if hasattr(type(part), "set_input_size")), None)


def _changed(old: nn.Module, new: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    for name, tensor in [*new._parameters.items(), *new._buffers.items()]:
        if tensor is not getattr(old, name) and not _same_tensor(tensor, getattr(old, name)):
            yield old, name, tensor
    for name, value in vars(new).items():
        if isinstance(value, _PLAIN) and name in vars(old) and value != vars(old)[name]:
            yield old, name, value


def _same_tensor(one: Any, other: Any) -> bool:
    return (
        isinstance(one, Tensor) and isinstance(other, Tensor) and one.shape == other.shape and torch.equal(one, other)
    )


def _pair(value: Any, name: str) -> tuple[int, int]:
    sides = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value, value]
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides):
        raise ConfigurationError(f"{name}={value!r}; it is (height, width) or one number for both, whole and from 1.")
    return sides[0], sides[1]


def _check_patches(
    model: PretrainedModel,
    sized: nn.Module | None,
    size: tuple[int, int],
    patch: tuple[int, int] | None,
    window: tuple[int, int] | None,
) -> None:
    taken = {} if sized is None else inspect.signature(cast(Any, sized).set_input_size).parameters
    for name, value in (("patch_size", patch), ("window_size", window)):
        if value is not None and name not in taken:
            raise ConfigurationError(f"{model.name} has no {name} that could be changed; leave it out.")
    patches: Any = patch or getattr(getattr(sized, "patch_embed", None), "patch_size", None)
    if patches is not None and any(side % part for side, part in zip(size, patches, strict=True)):
        near = [max(1, round(side / part)) * part for side, part in zip(size, patches, strict=True)]
        raise ConfigurationError(
            f"{model.name} cuts images into patches of {patches[0]} x {patches[1]} pixels, which do not divide "
            f"{size[0]} x {size[1]}; {near[0]} x {near[1]} is near."
        )
