"""Videos for a network of images: frame by frame, then over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import nn

from ...errors import ConfigurationError
from ...models import PretrainedModel
from ...nn import FrameAttention, FrameVectors, Pool
from ...vision import ImagePreprocess, VideoPreprocess
from ..surgery._changes import Changes
from ..surgery._edit import EDITS, InputEdit, Trial, perform
from ..surgery._trial import example_inputs
from ._images import check_images, check_is_model

_POOLINGS = ("mean", "max", "attention")


def adapt_to_video(
    model: PretrainedModel, frames: int = 8, *, pooling: str = "mean", optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Any]:
    """Make a network of images read videos, lists of images or arrays; gives the edit's record.

    Each frame goes through the network as an image did, and the frames' pooled features are pooled over time. So
    model.features gives (n, frames, feature_size), and a video of one repeated image gets the answer of that image. The
    model is changed in place; undo_edit takes it back.

    Args:
        model: of plain images, from load_pretrained_model.
        frames: that are read of a video, evenly from its first to its last one.
        pooling: over time: "mean", "max", or "attention" with one learned query, which begins as the mean.
        optimizer: trains the model, and shall train the query.

    Raises:
        EditError: the model reads no plain images; it is as it was. ConfigurationError: an argument cannot work.
    """
    model = check_is_model(model)
    check_images(model, classifies=True)
    if pooling not in _POOLINGS:
        raise ConfigurationError(f"pooling={pooling!r}; possible: {', '.join(map(repr, _POOLINGS))}.")
    if model.pool.mode == "none":
        raise ConfigurationError("the model gives feature maps, pooling='none'; load it with a pooling.")
    VideoPreprocess(cast(ImagePreprocess, model.preprocess), frames)  # refuses a number that is none
    return perform(Trial.of(model), AdaptToVideo(frames=frames, pooling=pooling), optimizer=optimizer)


@final
@EDITS.register("adapt_to_video")
@dataclass(frozen=True, kw_only=True)
class AdaptToVideo(InputEdit):
    """frames: of a video. pooling: over time."""

    frames: int
    pooling: str

    def apply(self, model: nn.Module, changes: Changes) -> None:
        """See Edit."""
        trunk, pool = model.get_submodule("trunk"), cast(Pool, model.get_submodule("pool"))
        attention = None
        if self.pooling == "attention":
            like = next(trunk.parameters())
            width = int(cast(PretrainedModel, model).feature_size)
            attention = FrameAttention(width).to(device=like.device, dtype=like.dtype)
        changes.set(model, "trunk", FrameVectors(trunk, pool, attention).train(trunk.training))
        over_time = "max" if self.pooling == "max" else "avg"
        changes.set(model, "pool", Pool(over_time, channels_last=True).train(pool.training))
        preprocess = getattr(model, "preprocess", None)
        if isinstance(preprocess, ImagePreprocess):
            changes.set(model, "preprocess", VideoPreprocess(preprocess, self.frames))

    def describe(self) -> str:
        """See Edit."""
        return f"adapting to videos of {self.frames} frames"

    def inputs_after(self, model: nn.Module, inputs: Any) -> Any:
        """See InputEdit."""
        return example_inputs(model)
