"""A network of images that reads videos, frame by frame."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn

from .pooling import Pool
from .wrapping import Around


@final
class FrameAttention(nn.Module):
    """Weighted mean over time, sum of softmax(q · x_t / sqrt(d)) x_t. (n, t, d) -> (n, 1, d)

    The query q begins with zeros, which is the plain mean.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(width))

    def forward(self, vectors: Tensor) -> Tensor:
        """See the class."""
        weights = (vectors @ self.query / math.sqrt(vectors.shape[-1])).softmax(1)
        return torch.einsum("nt,ntd->nd", weights, vectors)[:, None]


@final
class FrameVectors(Around):
    """(n, frames, c, h, w) -> (n, frames, d): the pooled features of each frame, or with attention (n, 1, d).

    base_layer: the trunk that reads images. pool: its pooling.
    """

    def __init__(self, base_layer: nn.Module, pool: Pool, attention: FrameAttention | None) -> None:
        super().__init__(base_layer)
        self.frame_pool = pool
        self.attention = nn.Identity() if attention is None else attention

    def forward(self, videos: Any) -> Tensor:
        """See the class."""
        vectors = self.frame_pool(self.base_layer(videos.flatten(0, 1)))
        attended: Tensor = self.attention(vectors.unflatten(0, (videos.shape[0], videos.shape[1])))
        return attended
