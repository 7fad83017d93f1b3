"""What images a set of segmentation weights was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._input import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from .segmentation import SegmentationPreprocess


@dataclass(frozen=True, kw_only=True)
class SegmentationInput:
    """Size, scaling and resampling of the images that segmentation weights expect.

    size: what images are resized to: a number for the shorter side, which keeps the proportion; (height, width) in
        pixels, which does not; None for as they are.
    crop: (height, width) in pixels that training cuts out of images of no fixed size; where size is None, at most.
    divisor: images are filled up at their right and lower edge to a multiple of so many pixels.
    mean, std: per channel, of values in [0, 1]; the network sees (value - mean) / std. None takes each image's own.
    channels: number of colour channels.
    files: names of what else is needed from beside the weights.
    """

    size: int | tuple[int, int] | None = 520
    crop: tuple[int, int] = (480, 480)
    divisor: int = 1
    mean: tuple[float, ...] | None = IMAGENET_MEAN
    std: tuple[float, ...] | None = IMAGENET_STD
    interpolation: str = "bilinear"
    channels: int = 3
    files: tuple[str, ...] = ()

    def open(self, trunk: Any, folder: Path | None, max_length: int | None) -> SegmentationPreprocess | None:
        """The preprocessing of images and masks; None for a trunk that reads another number of channels."""
        from .segmentation import SegmentationPreprocess

        return SegmentationPreprocess(self) if getattr(trunk, "channels", self.channels) == self.channels else None
