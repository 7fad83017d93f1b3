"""Other views of the same samples, as batched tensor functions that draw from torch's global generator.

What is changed in an image is measured in its own channels' means and standard deviations, so that a view of a
normalised image is the normalised view: f(a·x + b) = a·f(x) + b for a > 0, per channel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from ....errors import InputMismatchError
from ..method import Inputs

_IMAGES, _SERIES, _VECTORS = 4, 3, 2  # dimensions of a batch of them
_IDS, _MASK = "input_ids", "attention_mask"


def is_images(inputs: Inputs) -> bool:
    """Whether these are images, (n, channels, height, width)."""
    return isinstance(inputs, Tensor) and inputs.ndim == _IMAGES


def images_of(inputs: Inputs, method: str, instead: str) -> Tensor:
    """The inputs, where they are images (n, channels, height, width); else InputMismatchError. instead: what to do."""
    if isinstance(inputs, Tensor) and inputs.ndim == _IMAGES:
        return inputs if inputs.is_floating_point() else inputs.float()
    raise InputMismatchError(
        f"{method} reads images, (n, channels, height, width), and these are {described(inputs)}. {instead}"
    )


def described(inputs: Inputs) -> str:
    """Inputs in words, for messages."""
    if isinstance(inputs, Mapping):
        return f"a mapping of {', '.join(inputs)}"
    return f"a tensor of {inputs.ndim} dimensions and {inputs.dtype}"


def strong_view(inputs: Inputs, mirror: bool) -> Inputs:
    """Samples as one would still know them, but for good luck.

    Images (n, c, h, w): moved, turned, zoomed, other in brightness, contrast and colour, with a square cut out.
    mirror: half of them mirrored too. Series (n, c, t): noise, and a span cut out. Vectors (n, d): noise, and a tenth
    of the values replaced by those of the mean sample. Texts (a mapping with a mask): a tenth of the tokens is hidden.
    Raises InputMismatchError for anything else.
    """
    if isinstance(inputs, Mapping):
        return hide_tokens(inputs, 0.1)
    if not inputs.is_floating_point() and inputs.ndim != _IMAGES:
        raise InputMismatchError(_no_views(inputs))
    if inputs.ndim == _IMAGES:
        images = moved(images_of(inputs, "", ""), shift=0.125, turn=15.0, zoom=0.15, mirror=mirror)
        return hide(recoloured(images, contrast=0.4, brightness=0.4, colour=0.2), cut_out(images, 0.35))
    if inputs.ndim == _SERIES:
        return hide(noisy(inputs, 0.2), span(inputs, 0.2))
    if inputs.ndim == _VECTORS:
        return hide(noisy(inputs, 0.2), torch.rand_like(inputs) < 0.1)
    raise InputMismatchError(_no_views(inputs))


def masked(inputs: Inputs, share: float, cells: int) -> tuple[Inputs, Tensor | None]:
    """Samples of which a share is hidden; of images also which cells of the grid, (n, cells, cells) bool.

    Images are hidden cell by cell, series in spans of time, vectors value by value, texts token by token.
    """
    if isinstance(inputs, Mapping):
        return hide_tokens(inputs, share), None
    if is_images(inputs):
        images = images_of(inputs, "", "")
        chosen = torch.rand(len(images), cells, cells, device=images.device) < share
        return hide(images, _stretched(chosen[:, None], images.shape[2:])), chosen
    if inputs.is_floating_point() and inputs.ndim == _SERIES:
        chosen = torch.rand(len(inputs), 1, 1, cells, device=inputs.device) < share
        return hide(inputs, _stretched(chosen, (1, inputs.shape[2]))[:, 0]), None
    if inputs.is_floating_point() and inputs.ndim == _VECTORS:
        return hide(inputs, torch.rand_like(inputs) < share), None
    raise InputMismatchError(_no_views(inputs))


def moved(images: Tensor, *, shift: float, turn: float, zoom: float, mirror: bool) -> Tensor:
    """Each image moved by up to a share of its size, turned by up to `turn` degrees, zoomed by up to a factor 1 + zoom.

    Bilinear; what comes in from outside is mirrored at the border. images: (n, c, h, w) -> the same shape.
    """
    count, device = len(images), images.device
    if not count:
        return images
    angle, size = math.radians(turn) * _signed((count,), device), (1 + zoom) ** _signed((count,), device)
    aspect = images.shape[2] / images.shape[3]
    cosine, sine = angle.cos() * size, angle.sin() * size
    sign = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0) if mirror else torch.ones_like(angle)
    across = torch.stack([cosine * sign, -sine * aspect, 2 * shift * _signed((count,), device)], dim=1)
    down = torch.stack([sine * sign / aspect, cosine, 2 * shift * _signed((count,), device)], dim=1)
    grid = functional.affine_grid(torch.stack([across, down], dim=1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid.to(images.dtype), padding_mode="reflection", align_corners=False)


def recoloured(images: Tensor, *, contrast: float, brightness: float, colour: float) -> Tensor:
    """Contrast times e^U(−contrast, contrast); brightness shifted by up to `brightness` standard deviations, each
    channel by up to `colour` more. images: (n, c, h, w) -> the same shape.
    """
    count, channels = images.shape[:2]
    mean, spread = _channel_means(images), images.flatten(2).std(2, unbiased=False)[..., None, None]
    factor = (contrast * _signed((count, 1, 1, 1), images.device)).exp()
    shift = brightness * _signed((count, 1, 1, 1), images.device) + colour * _signed(
        (count, channels, 1, 1), images.device
    )
    return (images - mean) * factor + mean + shift * spread


def cut_out(images: Tensor, side: float) -> Tensor:
    """(n, 1, h, w) bool: a square in each image, of side · min(h, w), with its middle anywhere in it.

    DeVries & Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017.
    """
    (height, width), count = images.shape[2:], len(images)
    half = side * min(height, width) / 2
    rows = torch.arange(height, device=images.device) + 0.5
    columns = torch.arange(width, device=images.device) + 0.5
    middle = torch.rand(count, 2, 1, device=images.device)
    in_rows = (rows - middle[:, 0] * height).abs() < half
    in_columns = (columns - middle[:, 1] * width).abs() < half
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def span(series: Tensor, share: float) -> Tensor:
    """(n, 1, t) bool: a share of the time, one span in each series."""
    length = series.shape[2]
    start = torch.rand(len(series), 1, 1, device=series.device) * (1 - share) * length
    steps = torch.arange(length, device=series.device) + 0.5
    return (steps > start) & (steps < start + share * length)


def noisy(values: Tensor, amount: float) -> Tensor:
    """Gaussian noise of `amount` standard deviations: of the batch's column, or of a series' own channel."""
    spread = values.std(0 if values.ndim == _VECTORS else 2, unbiased=False, keepdim=True) if len(values) else 0.0
    return values + amount * spread * torch.randn_like(values)


def hide(values: Tensor, chosen: Tensor) -> Tensor:
    """Where `chosen`, the mean in place of the value: of the image's or series' channel, or of the batch's column."""
    if values.ndim == _VECTORS:
        return torch.where(chosen, values.mean(0, keepdim=True), values) if len(values) else values
    mean = _channel_means(values) if values.ndim == _IMAGES else values.mean(2, keepdim=True)
    return torch.where(chosen, mean, values)


def hide_tokens(inputs: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """A share of a text's tokens is taken out of its mask, so that the model reads past them; never the first one.

    The "cutoff" of Yan et al., ConSERT, ACL 2021, section 3.2. inputs: `input_ids` and `attention_mask`, (n, tokens).
    """
    if _IDS not in inputs or _MASK not in inputs:
        raise InputMismatchError(_no_views(inputs))
    mask = inputs[_MASK]
    hidden = torch.rand(mask.shape, device=mask.device) < share
    hidden[:, 0] = False
    return {**inputs, _MASK: mask.masked_fill(hidden, 0)}


def _signed(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uniform in [−1, 1)."""
    return 2 * torch.rand(shape, device=device) - 1


def _channel_means(images: Tensor) -> Tensor:
    return images.mean((2, 3), keepdim=True)


def _stretched(cells: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """(n, 1, rows, columns) bool -> (n, 1, *size) bool."""
    return functional.interpolate(cells.float(), size=tuple(size), mode="nearest") > 0.5


def _no_views(inputs: Inputs) -> str:
    return (
        f"of {described(inputs)} no other view can be made; there are views of images (n, channels, height, width), "
        f"series (n, channels, time), vectors (n, d), all of floats, and texts, mappings with {_IDS} and {_MASK}. "
        "Take a method that looks at features alone, 'information_maximisation' say."
    )
