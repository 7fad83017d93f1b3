"""Images of other channels than those that the weights were made for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from ...data import DataLoader
from ...errors import ConfigurationError, EditError
from ...models import PretrainedModel
from ...vision import ImagePreprocess, SegmentationPreprocess
from ...vision.channels import (
    CHANNEL_MAPS,
    Bands,
    band_map,
    channel_scaling,
    convert_channels,
    dense_weight,
    usual_map,
)
from ..surgery._changes import Changes
from ..surgery._edit import EDITS, InputEdit, Trial, perform
from ..surgery._trial import structure_of
from ._images import (
    channels_read,
    check_images,
    check_is_model,
    inputs_with_channels,
    stem_of,
    with_scaling,
)
from ._stem_statistics import Moments, batches_of, layer_moments, norm_behind

COLOURS = ("red", "green", "blue")
_LEAST_STD = 1 / 255  # of a channel that is the same everywhere


def adapt_channels(
    model: PretrainedModel,
    channels: int,
    *,
    how: str | Sequence[Sequence[float]] = "auto",
    bands: Bands | None = None,
    from_bands: Sequence[str] = COLOURS,
    data: Any = None,
    optimizer: torch.optim.Optimizer | None = None,
    inputs: Any = None,
) -> dict[str, Any] | None:
    """Make a model read images of another number of channels; gives the edit's record, None where nothing changes.

    The filters of the first layer are added up by shares (see vision.channels), and the mean and deviation that
    images are scaled by follow them. The model is changed in place; undo_edit takes it back.

    Args:
        model: of images, from load_pretrained_model.
        channels: of the new images.
        how: "sum", so that a grey image gives what its copies in red, green and blue gave; "mean"; "repeat", the
            filters in turn and rescaled; "bands", see there; "auto", the sum for one channel, else repeat; or a matrix
            (channels, channels now) of shares.
        bands: new bands in their order, each with the name of the old band that it is read like, or shares of several:
            {"red": "red", "nir": "red", "swir": {"red": 0.5, "green": 0.5}, "mask": {}}; {} begins with zeros.
        from_bands: names of the channels that the model reads now.
        data: raw images of the new kind, or a dataset of them, of which up to 512 are looked at. Their mean and
            deviation scale the images from then on, and what the first layer gives for them gets the mean and
            variance that its weights were trained to give: by a factor for each filter, and its bias or the running
            mean of the batch norm behind it. Those are the norm's statistics or, without a norm, what the old layer
            gives for the channels that it knows.
        optimizer: trains the model, and shall train the new filters.
        inputs: a batch that the model reads now, for a module of your own, of which nothing tells that.

    Raises:
        EditError: the model reads no images, or not by a convolution of their channels. The model is as it was.
        UnknownNameError: there is no such way or band; ConfigurationError: an argument cannot work.
    """
    model = check_is_model(model)
    check_images(model)
    _check_count(channels)
    if model.preprocess is not None and not isinstance(model.preprocess, (ImagePreprocess, SegmentationPreprocess)):
        raise EditError(
            f"{model.name} is a detector, which reads the three colours of an image; its boxes' preprocessing has no "
            "other channels. The model is as it was."
        )
    trial = Trial.of(model, inputs)
    stem = stem_of(model, trial.before)
    old = channels_read(model, stem, trial.inputs)
    matrix = _matrix(how, channels, old, bands, from_bands)
    if data is None and torch.equal(matrix, torch.eye(old, dtype=matrix.dtype)):
        return None
    edit = _edit(model, stem, matrix)
    if data is not None:
        edit = _matched(trial, edit, data, _known_channels(matrix, list(bands or ()), from_bands))
    return perform(trial, edit, optimizer=optimizer)


@final
@EDITS.register("adapt_channels")
@dataclass(frozen=True, kw_only=True)
class AdaptChannels(InputEdit):
    """layer: qualified name of the first convolution. matrix: (new, old) shares. mean, std: that images are scaled by;
    None where the model has no preprocessing.

    scale, shift: a factor of each filter and what its bias gets beside it; norm, norm_mean: the batch norm behind and
    its new running mean. None where nothing was measured.
    """

    layer: str
    matrix: Sequence[Sequence[float]]
    mean: Sequence[float] | None
    std: Sequence[float] | None
    scale: Sequence[float] | None = None
    shift: Sequence[float] | None = None
    norm: str | None = None
    norm_mean: Sequence[float] | None = None

    def apply(self, model: nn.Module, changes: Changes) -> None:
        """See Edit."""
        preprocess = getattr(model, "preprocess", None)
        if self.mean is not None and self.std is not None and preprocess is not None:
            preprocess = with_scaling(preprocess, tuple(self.mean), tuple(self.std))
            changes.set(model, "preprocess", preprocess)
        stem = cast(nn.Conv2d, model.get_submodule(self.layer))
        put_channels(stem, torch.tensor(self.matrix, dtype=torch.float64), changes, self.scale)
        if self.shift is not None and stem.bias is not None:
            bias = stem.bias.detach() * _like(self.scale, stem.bias) + _like(self.shift, stem.bias)
            changes.resize(stem, "bias", nn.Parameter(bias, stem.bias.requires_grad))
        if self.norm is not None and self.norm_mean is not None:
            norm = model.get_submodule(self.norm)
            changes.set(norm, "running_mean", _like(self.norm_mean, norm.get_buffer("running_mean")))
        trunk = getattr(model, "trunk", None)
        if isinstance(getattr(trunk, "channels", None), int):
            changes.set(cast(nn.Module, trunk), "channels", len(self.matrix))

    def describe(self) -> str:
        """See Edit."""
        return f"adapting to {len(self.matrix)} channels"

    def inputs_after(self, model: nn.Module, inputs: Any) -> Any:
        """See InputEdit."""
        return inputs_with_channels(model, inputs, len(self.matrix))


def put_channels(stem: nn.Conv2d, matrix: Tensor, changes: Changes, scale: Sequence[float] | None = None) -> None:
    """Give a convolution the filters for other channels. matrix: (new, old). scale: a factor of each filter."""
    weight = stem.weight.detach()
    weight = convert_channels(weight if stem.groups == 1 else dense_weight(weight, stem.groups), matrix)
    if scale is not None:
        weight = weight * _like(scale, weight)[:, None, None, None]
    changes.resize(stem, "weight", nn.Parameter(weight, stem.weight.requires_grad))
    changes.set(stem, "in_channels", len(matrix))
    changes.set(stem, "groups", 1)


def _like(values: Any, tensor: Tensor) -> Tensor:
    return torch.tensor(values, dtype=tensor.dtype, device=tensor.device)


def _check_count(channels: int) -> None:
    if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
        raise ConfigurationError(f"channels={channels!r}; it is the number of channels of the new images, from 1.")


def _matrix(how: Any, new: int, old: int, bands: Bands | None, from_bands: Sequence[str]) -> Tensor:
    """(new, old) float64."""
    if bands is not None or how == "bands":
        return _band_matrix(how, new, old, bands, from_bands)
    if isinstance(how, str):
        if how == "auto":
            return usual_map(new, old)
        return CHANNEL_MAPS[how](new, old)
    try:
        matrix = torch.tensor(how, dtype=torch.float64)
    except (TypeError, ValueError):
        matrix = torch.zeros(0)
    if tuple(matrix.shape) != (new, old) or not bool(matrix.isfinite().all()):
        raise ConfigurationError(
            f"how= takes auto, {', '.join(CHANNEL_MAPS)}, bands or a matrix of {new} rows and {old} columns of "
            f"numbers; this is {str(how)[:80]}."
        )
    return matrix


def _band_matrix(how: Any, new: int, old: int, bands: Bands | None, from_bands: Sequence[str]) -> Tensor:
    if bands is None or how not in ("auto", "bands"):
        raise ConfigurationError(
            f"how={how!r} and bands={bands!r}; bands={{new band: old band, …}} goes with how='bands', and how='bands' "
            "needs them."
        )
    if len(bands) != new:
        raise ConfigurationError(
            f"the images have {new} channels and bands names {len(bands)} ({', '.join(bands)}); name each band, in "
            "the order of the channels."
        )
    if len(from_bands) != old or len(set(from_bands)) != old:
        raise ConfigurationError(
            f"the model reads {old} channels and from_bands names {len(set(from_bands))} ({', '.join(from_bands)}); "
            "name each of them once, in their order."
        )
    return band_map(bands, from_bands)


def _edit(model: PretrainedModel, stem: str, matrix: Tensor) -> AdaptChannels:
    spec = None if model.preprocess is None else model.preprocess.spec
    mean, std = (None, None) if spec is None else (spec.mean, spec.std)
    if spec is not None:  # of images that are scaled by their own numbers these only tell how many channels there are
        mean, std = mean or (0.0,) * matrix.shape[1], std or (1.0,) * matrix.shape[1]
        mean, std = list(channel_scaling(mean, matrix)), list(channel_scaling(std, matrix))
    return AdaptChannels(layer=stem, matrix=matrix.tolist(), mean=mean, std=std)


def _known_channels(matrix: Tensor, bands: list[str], from_bands: Sequence[str]) -> list[int]:
    """For each old channel the new one that shows the same: of its name, else the first that is read most like it."""
    nearest: list[int] = matrix.abs().argmax(0).tolist()
    return [
        bands.index(name) if name in bands else near
        for name, near in zip(_named(from_bands, nearest), nearest, strict=True)
    ]


def _named(names: Sequence[str], places: list[int]) -> Sequence[str]:
    return names if len(names) == len(places) else [""] * len(places)


def _matched(trial: Trial, edit: AdaptChannels, data: Any, known: list[int]) -> AdaptChannels:
    """The edit with the scaling of these images, and what it takes for the first layer to give what it gave."""
    model = cast(PretrainedModel, trial.model)
    if not isinstance(model.preprocess, ImagePreprocess):
        raise EditError(
            "data= is for models of plain images, whose preprocessing has a mean and a deviation; leave it out. The "
            "model is as it was."
        )
    new, spec = len(edit.matrix), model.preprocess.spec
    batches = batches_of(data, with_scaling(model.preprocess, (0.0,) * new, (1.0,) * new))
    pixels = Moments()
    for batch in batches.batches(0):
        pixels.add(cast(Tensor, batch.inputs))
    mean, std = pixels.mean, pixels.variance.sqrt().clamp(min=_LEAST_STD)
    old_mean, old_std = torch.tensor(spec.mean), torch.tensor(spec.std)
    return matched_to(
        trial,
        replace(edit, mean=mean.tolist(), std=std.tolist()),
        batches,
        made=lambda planes: _scaled(planes, mean, std),
        reference=lambda planes: _scaled(planes[:, known], old_mean, old_std),
    )


def matched_to(
    trial: Trial,
    edit: AdaptChannels,
    batches: DataLoader,
    *,
    made: Callable[[Any], Any],
    reference: Callable[[Any], Any],
) -> AdaptChannels:
    """The edit with what it takes for the first layer to give, on these data, what it was trained to give.

    Of each output, with mean m and variance v on the data, and M and V wanted: the filter times sqrt(V / v), and the
    bias, or the running mean of the batch norm behind, so that the mean is M as the rest of the network sees it.
    made: inputs of a batch -> what the adapted model reads; reference: -> what the model reads now.
    """
    model = trial.model
    twin = structure_of(model)
    edit.apply(twin, Changes({}))
    given = layer_moments(twin, edit.layer, batches, made)
    norm = norm_behind(model, edit.layer, trial.inputs)
    if norm is None:
        wanted = layer_moments(model, edit.layer, batches, reference)
        mean, variance = wanted.mean, wanted.variance
    else:
        statistics = model.get_submodule(norm)
        mean, variance = (
            statistics.get_buffer(name).detach().double().cpu() for name in ("running_mean", "running_var")
        )
    scale = (variance / given.variance).sqrt()
    scale = torch.where(scale.isfinite() & (scale > 0), scale, torch.ones_like(scale))
    if model.get_submodule(edit.layer).bias is not None:
        return replace(edit, scale=scale.tolist(), shift=(mean - scale * given.mean).tolist())
    moved = None if norm is None else (scale * given.mean).tolist()
    return replace(edit, scale=scale.tolist(), norm=norm, norm_mean=moved)


def _scaled(planes: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (planes - mean.to(planes)[:, None, None]) / std.to(planes)[:, None, None]
