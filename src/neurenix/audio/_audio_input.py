"""What sounds a set of weights was trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .preprocess import AudioPreprocess


@dataclass(frozen=True, kw_only=True)
class AudioInput:
    """Rate, scaling and lengths of the sounds that weights expect: one channel of samples in [-1, 1].

    sample_rate: in hertz.
    normalise: whether each sound is brought to mean 0 and variance 1.
    shortest: samples that the network needs; shorter sounds are filled up with silence.
    longest: samples after which sounds are cut; None for no limit.
    multiple: what is filled up at a sound's end so that its length is a multiple of this.
    files: names of what a network needs beside its weights (config.json, symbols); of no meaning for sounds.
    """

    sample_rate: int = 16_000
    normalise: bool = False
    shortest: int = 400
    longest: int | None = None
    multiple: int = 1
    files: tuple[str, ...] = field(default=(), compare=False)

    def open(self, trunk: Any, folder: Path | None, max_length: int | None) -> AudioPreprocess | None:
        """The preprocessing of one sound; None for a trunk that says it reads something else, codes for instance."""
        if not getattr(trunk, "reads_waveforms", True):
            return None
        from .preprocess import AudioPreprocess

        return AudioPreprocess(self)
