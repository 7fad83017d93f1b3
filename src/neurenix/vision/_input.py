"""What images a set of weights was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from .preprocess import ImagePreprocess

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """Size, scaling and resampling of the images that weights expect.

    size: (height, width) in pixels after cropping.
    mean, std: per channel, of values in [0, 1]; the network sees (value - mean) / std.
    interpolation: "bicubic", "bilinear" or "nearest".
    crop: share of the resized image that the centre crop keeps; the shorter side is resized to size / crop.
    """

    files: ClassVar[tuple[str, ...]] = ()  # nothing beside the weights is needed
    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bicubic"
    crop: float = 0.875

    @property
    def channels(self) -> int:
        """Number of colour channels."""
        return len(self.mean)

    def open(self, trunk: Any, folder: Path | None, max_length: int | None) -> ImagePreprocess:
        """The preprocessing that timm does in evaluation."""
        from .preprocess import ImagePreprocess

        return ImagePreprocess(self)
