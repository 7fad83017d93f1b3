"""Logits by the distance to the mean of each class."""

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
from .cosine import cosine_logits

DISTANCES = ("euclidean", "cosine")
_SCALES = tuple(2.0 ** (power / 2) for power in range(-40, 21))


def negative_squared_distances(features: Tensor, prototypes: Tensor) -> Tensor:
    """-‖x - cₖ‖². Snell, Swersky & Zemel, Prototypical Networks for Few-shot Learning, NeurIPS 2017, eq. 2.

    features: (n, d), prototypes: (k, d) -> (n, k), <= 0, in squared feature units
    """
    squares = features.square().sum(1, keepdim=True) + prototypes.square().sum(1)
    return -(squares - 2 * features @ prototypes.T).clamp(min=0)


def best_scale(left_out: Tensor, targets: Tensor) -> float:
    """The factor s with the least cross-entropy of s · left_out, as certain as so many samples of a class support.

    See training.classification_head, which scales ridge scores in the same way. left_out: (n, k), targets: (n,)
    """
    samples, classes = left_out.shape
    doubt = min(1.0, 1 / (samples / classes + 2) * classes / max(1, classes - 1))
    losses = [functional.cross_entropy(scale * left_out, targets, label_smoothing=doubt) for scale in _SCALES]
    return _SCALES[int(torch.stack(losses).argmin())]


@HEADS.register("prototype", "prototypes", "nearest_centroid")
@final
@dataclass(frozen=True, kw_only=True)
class Prototype(HeadKind):
    """s · (minus the squared distance to a class's mean, or the cosine with it): few samples are enough to set it.

    num_outputs: classes.
    distance: "euclidean" (squared) or "cosine".
    scale: s; None chooses it when the prototypes are set, so that each sample gets a good probability from prototypes
        that it is not part of. What is decided does not depend on it.
    start: "closed_form", the classes' mean features; the prototypes may be trained on from there.
    """

    num_outputs: int
    distance: str = "euclidean"
    scale: float | None = None
    start: str = "closed_form"

    task: ClassVar[TaskKind | None] = "multi_class"
    loss: ClassVar[str] = "cross_entropy"
    starts: ClassVar[tuple[str, ...]] = ("closed_form", "default", "by_name")

    def check(self) -> None:
        """Names and signs."""
        if self.distance not in DISTANCES:
            raise ConfigurationError(f"distance={self.distance!r}; possible: {', '.join(DISTANCES)}.")
        if self.scale is not None and not self.scale > 0:
            raise ConfigurationError(f"scale={self.scale}; it is positive, or None.")

    def build(self, backbone: Backbone) -> nn.Module:
        """The head, with random prototypes until the first fit."""
        return PrototypeHead(backbone.feature_size, self.num_outputs, self.distance, self.scale)


@final
class PrototypeHead(VectorHead, Solvable):
    """(n, feature_size) -> logits (n, num_outputs). See Prototype."""

    scale: Tensor

    def __init__(self, feature_size: int, num_outputs: int, distance: str, scale: float | None) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(num_outputs, feature_size))
        self._compare = _similarities if distance == "cosine" else negative_squared_distances
        self._chooses_scale = scale is None
        usual = 16.0 if distance == "cosine" else 1 / feature_size
        self.register_buffer("scale", torch.tensor(scale or usual))

    @property
    def num_outputs(self) -> int:
        """Classes."""
        return len(self.prototypes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        return self.scale * self._compare(features, self.prototypes)

    def class_rows(self) -> Sequence[Tensor]:
        """The prototypes."""
        return (self.prototypes,)

    @torch.no_grad()
    def solve(self, features: Tensor, targets: Tensor) -> None:
        """Set each prototype to the mean features of its class. targets: (n,) class numbers."""
        means = class_means(features, targets, self.num_outputs)
        self.prototypes.copy_(means)
        if self._chooses_scale:
            left_out = self._left_out(features.double(), targets.long(), means.double())
            self.scale.fill_(best_scale(left_out, targets.long()))

    def _left_out(self, features: Tensor, targets: Tensor, means: Tensor) -> Tensor:
        """(n, k): each sample compared with prototypes that it is not part of."""
        counts = torch.bincount(targets, minlength=len(means)).double()[targets].unsqueeze(1)
        own = (counts * means[targets] - features) / (counts - 1).clamp(min=1)
        if self._compare is _similarities:
            with_own = functional.cosine_similarity(features, own, dim=1)
        else:
            with_own = -(features - own).square().sum(1)
        return self._compare(features, means).scatter(1, targets.unsqueeze(1), with_own.unsqueeze(1))


def _similarities(features: Tensor, prototypes: Tensor) -> Tensor:
    return cosine_logits(features, prototypes, 1.0)
