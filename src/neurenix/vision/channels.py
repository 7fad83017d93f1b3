"""From images of some channels to images of others: what the weights of a first layer become.

Every way is a matrix M (new, old): the filter of new channel i is the sum over the old channels c of M[i, c] times the
filter of c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..errors import ConfigurationError, UnknownNameError
from ..registry import Registry

Bands = Mapping[str, "str | Mapping[str, float]"]

CHANNEL_MAPS: Registry[Callable[[int, int], Tensor]] = Registry("way to map channels")


@CHANNEL_MAPS.register("sum")
def summed(new: int, old: int) -> Tensor:
    """Each new channel is read by 1 / new of the sum of all old filters.

    An image whose channels are all equal gives what one with equal old channels gave: a grey one what its copies in
    red, green and blue gave. -> (new, old) float64
    """
    return torch.full((new, old), 1 / new, dtype=torch.float64)


@CHANNEL_MAPS.register("mean")
def averaged(new: int, old: int) -> Tensor:
    """Each new channel is read by the mean of the old filters, whatever their number. -> (new, old) float64"""
    return torch.full((new, old), 1 / old, dtype=torch.float64)


@CHANNEL_MAPS.register("repeat")
def repeated(new: int, old: int) -> Tensor:
    """The old filters in turn, times old / new, as timm does it. -> (new, old) float64"""
    rows = torch.arange(new)
    matrix = torch.zeros(new, old, dtype=torch.float64)
    matrix[rows, rows % old] = old / new
    return matrix


def usual_map(new: int, old: int) -> Tensor:
    """The sum for one channel, else the filters in turn; as they are for as many. -> (new, old) float64"""
    return summed(new, old) if new == 1 else repeated(new, old)


def band_map(bands: Bands, from_bands: Sequence[str]) -> Tensor:
    """New bands by name, in their order: the name of the old band that each is read like, or {old band: share, …}.

    A band of {} begins with zeros, so that a model gives what it gave without it. -> (len(bands), len(from_bands))
    Raises UnknownNameError for a band that is not in from_bands.
    """
    matrix = torch.zeros(len(bands), len(from_bands), dtype=torch.float64)
    for row, shares in enumerate(bands.values()):
        for name, share in ({shares: 1.0} if isinstance(shares, str) else shares).items():
            if name not in from_bands:
                raise UnknownNameError("band", name, from_bands, hint="from_bands=… names those that the weights read.")
            matrix[row, list(from_bands).index(name)] = share
    return matrix


def convert_channels(weight: Tensor, matrix: Tensor) -> Tensor:
    """The weight W' with W'[:, i] = sum over c of M[i, c] W[:, c]. weight: (o, old, …), matrix: (new, old) -> (o,
    new, …)

    Raises ConfigurationError for a matrix of another width.
    """
    if matrix.ndim != 2 or matrix.shape[1] != weight.shape[1]:
        raise ConfigurationError(
            f"a map of channels has a row for each new channel and {weight.shape[1]} columns, one for each channel "
            f"that the weights read; this one has the shape {tuple(matrix.shape)}."
        )
    values = weight.to(torch.promote_types(weight.dtype, torch.float32))
    shares = matrix.to(values).reshape(1, *matrix.shape, *[1] * (weight.ndim - 2))
    converted = values.new_zeros(weight.shape[0], matrix.shape[0], *weight.shape[2:])
    for channel in range(weight.shape[1]):  # one by one: filters that are only moved keep every bit
        converted += shares[:, :, channel] * values[:, channel : channel + 1]
    return converted.to(weight.dtype)


def dense_weight(weight: Tensor, groups: int) -> Tensor:
    """The weight of a convolution in groups as that of one without. (o, c / groups, …) -> (o, c, …)"""
    outputs, width = weight.shape[0] // groups, weight.shape[1]
    dense = weight.new_zeros(weight.shape[0], width * groups, *weight.shape[2:])
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        dense[rows, group * width : (group + 1) * width] = weight[rows]
    return dense


def channel_scaling(values: Sequence[float], matrix: Tensor) -> tuple[float, ...]:
    """Means or deviations for the new channels: the average of those of the old channels that each is read like.

    values: (old,). matrix: (new, old), whose shares weigh by their size; a row of zeros takes the plain average.
    """
    scaled = []
    for row in matrix.abs().tolist():
        shares = row if any(row) else [1.0] * len(row)
        scaled.append(sum(share * value for share, value in zip(shares, values, strict=True)) / sum(shares))
    return tuple(scaled)
