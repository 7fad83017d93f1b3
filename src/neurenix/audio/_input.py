"""What sounds a set of weights was trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from .preprocess import AudioPreprocess


@dataclass(frozen=True, kw_only=True)
class AudioInput:
    """Mono clips at one rate, as float32 in [-1, 1].

    sample_rate: in Hz. normalise: whether each clip is brought to zero mean and unit variance.
    max_length: the longest clip in samples at this rate, of which the rest is cut off; None for any.
    min_length: the shortest clip in samples that the network can read; shorter ones are filled up with silence.
    augmentation: what training does to clips, a key of AUGMENTATIONS; "light" where targets follow the whole clip in
        time, such as transcripts.
    """

    files: ClassVar[tuple[str, ...]] = ()  # nothing beside the weights is needed
    sample_rate: int = 16_000
    normalise: bool = False
    max_length: int | None = None
    min_length: int = 1
    augmentation: str = "standard"

    def open(self, trunk: Any, folder: Path | None, max_length: int | None) -> AudioPreprocess:
        """The preprocessing of one clip. max_length: in samples, instead of the weights' own."""
        from .preprocess import AudioPreprocess

        if max_length is None:
            return AudioPreprocess(self)
        if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < self.min_length:
            raise ConfigurationError(
                f"max_length={max_length!r}; it is a number of samples at {self.sample_rate} Hz, at least "
                f"{self.min_length}, the shortest clip that the network reads."
            )
        return AudioPreprocess(replace(self, max_length=max_length))
