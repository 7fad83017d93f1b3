"""Sounds as pictures: what of a log-mel spectrogram a network of images reads."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class MelImageInput:
    """Sounds of one length as log-mel pictures of one size, time to the right, low bands at the bottom.

    size: (height, width) of the picture in pixels. sample_rate: in hertz. seconds: of a sound that are read, from its
    beginning; shorter ones are filled up with silence. mels: bands. window, hop: of the Fourier transform, in
    milliseconds. mean, std: of decibels; the network sees (decibels - mean) / std. None takes each picture's own.
    """

    size: tuple[int, int] = (224, 224)
    sample_rate: int = 16_000
    seconds: float = 1.0
    mels: int = 64
    window: float = 25.0
    hop: float = 10.0
    mean: float | None = None
    std: float | None = None

    def __post_init__(self) -> None:
        for name in ("sample_rate", "seconds", "mels", "window", "hop"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
                raise ConfigurationError(f"{name}={value!r}; it is a number above 0.")
        if self.seconds * 1000 < self.window or self.sample_rate * self.hop < 1000 or self.hop > self.window:
            raise ConfigurationError(
                f"seconds={self.seconds}, window={self.window}, hop={self.hop}; a sound is longer than a window, and "
                "windows of milliseconds follow each other by at least one sample and at most their length."
            )
        if (self.mean is None) != (self.std is None) or (self.std is not None and not self.std > 0):
            raise ConfigurationError("mean and std go together, std above 0: give both, or None for both.")

    @property
    def channels(self) -> int:
        """A spectrogram is grey."""
        return 1

    @property
    def samples(self) -> int:
        """Samples of a sound that are read."""
        return round(self.seconds * self.sample_rate)
