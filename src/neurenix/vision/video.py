"""From a video, as a sequence of images, to frames that a network of images reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from ..data import PREPROCESSES, Dataset, PreparedDataset, report
from ..data._randomness import own_random_state, seed_everything
from ..data.findings import Finding
from ..errors import ConfigurationError, InputMismatchError
from ._input import ImageInput
from .preprocess import ImagePreprocess, is_raw_image

_MOST_FRAMES = 1024


@final
@PREPROCESSES.register("video")
@dataclass(frozen=True)
class VideoPreprocess:
    """One raw video -> (frames, channels, height, width) float32.

    A raw video is a list of raw images (see ImagePreprocess), or a uint8 array or tensor (time, height, width,
    channels) or (time, channels, height, width). So many frames are taken evenly from its first to its last one, some
    of them twice where it has fewer. Augmentation draws once for a video, not for each frame.
    image: what happens to each frame. frames: how many there are afterwards.
    """

    reads: ClassVar[str] = "video"

    image: ImagePreprocess
    frames: int = 8

    def __post_init__(self) -> None:
        if isinstance(self.frames, bool) or not isinstance(self.frames, int) or not 0 < self.frames <= _MOST_FRAMES:
            raise ConfigurationError(f"frames={self.frames!r}; it is a whole number from 1 to {_MOST_FRAMES}.")

    @property
    def spec(self) -> ImageInput:
        """What the weights expect of each frame."""
        return self.image.spec

    def __call__(self, raw: Any) -> Tensor:
        """The frames of one raw video."""
        if len(raw) == 0:
            raise InputMismatchError("a video without any frame came; it needs one at least.")
        places = np.linspace(0, len(raw) - 1, self.frames).round().astype(int)
        if self.image.augmentation == "none":
            return torch.stack([self.image(raw[place]) for place in places])
        seed, frames = int(torch.randint(2**31, ())), []
        for place in places:
            with own_random_state():
                seed_everything(seed)
                frames.append(self.image(raw[place]))
        return torch.stack(frames)

    def accepts(self, raw: Any) -> bool:
        """Whether `raw` still has to be preprocessed: True for lists of images and uint8 arrays of four dimensions."""
        if isinstance(raw, Sequence) and not isinstance(raw, (str, bytes)):
            return bool(raw) and all(is_raw_image(frame) for frame in raw)
        return str(getattr(raw, "dtype", "")) in ("uint8", "torch.uint8") and len(raw.shape) == 4

    def example(self) -> Any:
        """A raw video."""
        return np.zeros((2, 64, 64, self.spec.channels), dtype=np.uint8)

    def for_training(self, augmentation: str = "standard") -> VideoPreprocess:
        """The same preprocessing with a random augmentation."""
        return VideoPreprocess(self.image.for_training(augmentation), self.frames)

    def wrap(self, dataset: Any, training: bool) -> Dataset:
        """`dataset` of raw videos as one of frames; for training augmented, if not chosen yet."""
        augment = training and self.image.augmentation == "none"
        return PreparedDataset(dataset, self.for_training() if augment else self)

    def check(self, inputs: Any) -> None:
        """Raise InputMismatchError or warn when a batch (n, frames, c, h, w) is not what the weights expect."""
        if not isinstance(inputs, Tensor) or inputs.ndim != 5 or inputs.shape[1] != self.frames:
            got = f"a tensor of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
            words = (
                f"this model reads videos (n, {self.frames}, channels, height, width), and the first batch is {got}. "
                "Give lists of images, or uint8 arrays (time, height, width, channels)."
            )
            report([Finding("layout", True, words)])
            return
        self.image.check(inputs.flatten(0, 1))

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON values."""
        return {"kind": "video", "frames": self.frames, "image": self.image.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path | None = None) -> VideoPreprocess:
        """What to_json described. folder: where a saved model lies; images need nothing from it."""
        return cls(ImagePreprocess.from_json(values["image"]), int(values["frames"]))
