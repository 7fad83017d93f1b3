"""What images a detector was trained on: how they are brought to size, which values they have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..errors import ConfigurationError
from ._input import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from .detection import DetectionPreprocess

RESIZINGS = ("letterbox", "shorter_side")


@dataclass(frozen=True, kw_only=True)
class DetectionInput:
    """Images of any size, brought to a detector's size with their proportions kept.

    resizing: "letterbox" makes the image as large as fits into `size`, at the top left, and fills the rest up.
        "shorter_side" brings the shorter side to size[0], unless the longer one would then exceed size[1].
    size: (height, width) of the letterbox, or (shorter, longer side), in pixels.
    mean, std: of values in [0, 1], red first; the network sees (value - mean) / std. None: it sees values 0..255.
    channel_order: "rgb" or "bgr", as the network's first layer reads them.
    fill: the value around an image, as the network sees it.
    multiple: height and width of a batch are rounded up to one of this.
    antialias: whether images are smoothed before they are made smaller, as PIL does.
    files: names of what else is needed from beside the weights.
    """

    resizing: str = "shorter_side"
    size: tuple[int, int] = (800, 1333)
    mean: tuple[float, float, float] | None = IMAGENET_MEAN
    std: tuple[float, float, float] | None = IMAGENET_STD
    channel_order: str = "rgb"
    fill: float = 0.0
    multiple: int = 32
    antialias: bool = False
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.resizing not in RESIZINGS:
            raise ConfigurationError(f"resizing={self.resizing!r}; possible: {', '.join(RESIZINGS)}.")
        if self.channel_order not in ("rgb", "bgr"):
            raise ConfigurationError(f"channel_order={self.channel_order!r}; possible: rgb, bgr.")
        if (self.mean is None) != (self.std is None):
            raise ConfigurationError("mean and std go together: give both, or None for both.")
        if min(*self.size, self.multiple) < 1:
            raise ConfigurationError(f"size={self.size}, multiple={self.multiple}; both are counts of pixels, from 1.")
        if self.resizing == "letterbox" and any(side % self.multiple for side in self.size):
            raise ConfigurationError(
                f"size={self.size} of a letterbox; both sides have to be multiples of {self.multiple}."
            )

    @classmethod
    def letterbox(cls, side: int) -> Self:
        """As YOLOX reads images: a square of `side` pixels filled up with grey 114, values 0..255, blue first."""
        return cls(resizing="letterbox", size=(side, side), mean=None, std=None, channel_order="bgr", fill=114.0)

    def open(self, trunk: Any, folder: Path | None, max_length: int | None) -> DetectionPreprocess:
        """The preprocessing of evaluation."""
        from .detection import DetectionPreprocess

        return DetectionPreprocess(self)
