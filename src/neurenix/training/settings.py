"""The loop's settings, checked at the door."""

from __future__ import annotations

from dataclasses import dataclass

from ..devices import PRECISIONS, Precision
from ..errors import ConfigurationError
from .prefix import ReuseOptions
from .schedules import check_schedule


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How to train, whatever is trained.

    accumulate: micro-batches per optimizer step. clip_norm: largest global gradient norm, None for no clipping.
    warmup: share of all steps (< 1) or number of steps. ema_decay: None for no moving average.
    keep_statistics: batch norms keep the running statistics that they were loaded with.
    plateau_patience: epochs without a better validation loss before a plateau is called.
    reuse: whether and how what frozen layers give is kept between epochs.
    """

    precision: Precision = "auto"
    schedule: str = "cosine"
    warmup: float = 0.0
    accumulate: int = 1
    clip_norm: float | None = None
    ema_decay: float | None = None
    keep_statistics: bool = False
    plateau_patience: int = 2
    seed: int = 0
    reuse: ReuseOptions = ReuseOptions()

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", check_schedule(self.schedule))
        if self.precision not in PRECISIONS:
            raise ConfigurationError(f"precision={self.precision!r}; possible: {', '.join(PRECISIONS)}.")
        if self.accumulate < 1:
            raise ConfigurationError(f"accumulation_steps={self.accumulate}; it is a count of batches, at least 1.")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ConfigurationError(f"clip_norm={self.clip_norm}; it is a positive norm, or None for no clipping.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigurationError(f"ema_decay={self.ema_decay}; it is between 0 and 1, 0.999 say, or None.")
