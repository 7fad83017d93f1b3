"""Logits by the angle between features and one direction for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigurationError
from ...metrics import TaskKind
from ...nn import Solvable, VectorHead
from ._backbone import Backbone
from ._class_means import class_means
from ._kind import HEADS, HeadKind


def cosine_logits(features: Tensor, directions: Tensor, scale: Tensor | float) -> Tensor:
    """Logits s · cos(x, wₖ). Gidaris & Komodakis, Few-Shot Visual Learning without Forgetting, CVPR 2018, eq. 3.

    features: (n, d), directions: (k, d), scale: () -> (n, k) in [-s, s]
    """
    return scale * functional.linear(functional.normalize(features, dim=1), functional.normalize(directions, dim=1))


@HEADS.register("cosine")
@final
@dataclass(frozen=True, kw_only=True)
class Cosine(HeadKind):
    """Logits s · cos(x, wₖ): classes differ in direction alone, so that rare ones are not outgrown by frequent ones.

    num_outputs: classes.
    scale: s; logits lie between -s and s, so k classes need about log(k) + 4 or more (Wang et al., CosFace, CVPR 2018,
        eq. 6). learn_scale: whether it is trained too.
    start: "default" (random directions), "closed_form" (directions are the classes' mean normalised features, Qi, Brown
        & Lowe, Low-Shot Learning with Imprinted Weights, CVPR 2018, eq. 4), "by_name" (from another cosine head).
    """

    num_outputs: int
    scale: float = 16.0
    learn_scale: bool = True
    start: str = "default"

    task: ClassVar[TaskKind | None] = "multi_class"
    loss: ClassVar[str] = "cross_entropy"
    starts: ClassVar[tuple[str, ...]] = ("default", "closed_form", "by_name")

    def check(self) -> None:
        """The scale is positive."""
        if not self.scale > 0:
            raise ConfigurationError(f"scale={self.scale}; it is positive, 16 say.")

    def build(self, backbone: Backbone) -> nn.Module:
        """The head."""
        return CosineHead(backbone.feature_size, self.num_outputs, self.scale, self.learn_scale)


@final
class CosineHead(VectorHead, Solvable):
    """(n, feature_size) -> s · cosines (n, num_outputs). See Cosine."""

    def __init__(self, feature_size: int, num_outputs: int, scale: float, learn_scale: bool) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.empty(num_outputs, feature_size).normal_(std=feature_size**-0.5))
        self.log_scale: Tensor  # of its logarithm the scale stays positive
        if learn_scale:
            self.log_scale = nn.Parameter(torch.tensor(scale).log())
        else:
            self.register_buffer("log_scale", torch.tensor(scale).log())

    @property
    def num_outputs(self) -> int:
        """Classes."""
        return len(self.directions)

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        return cosine_logits(features, self.directions, self.log_scale.exp())

    def class_rows(self) -> Sequence[Tensor]:
        """The directions."""
        return (self.directions,)

    @torch.no_grad()
    def solve(self, features: Tensor, targets: Tensor) -> None:
        """Imprint the classes' mean directions. targets: (n,) class numbers."""
        means = class_means(functional.normalize(features, dim=1), targets, self.num_outputs)
        self.directions.copy_(functional.normalize(means, dim=1))
