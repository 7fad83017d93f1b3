"""What Jukebox's weights expect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import nn

from ...data import Preprocess


@dataclass(frozen=True, kw_only=True)
class WaveformInput:
    """Waveforms that are ready: tensors (samples,), mono, in [-1, 1], at this rate.

    Recordings are not read or resampled: there is no preprocessing.
    """

    files: ClassVar[tuple[str, ...]] = ()
    sample_rate: int = 44_100

    def open(self, trunk: nn.Module, folder: Path | None, max_length: int | None) -> Preprocess | None:
        """None: inputs come as the trunk reads them."""
        return None
