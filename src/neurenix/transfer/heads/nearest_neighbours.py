"""Classes of the most similar training samples: a memory, with nothing to train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigurationError
from ...metrics import TaskKind
from ...nn import Solvable, VectorHead
from ._backbone import Backbone
from ._kind import HEADS, HeadKind

WEIGHTS = ("similarity", "uniform")
DISTANCES = ("cosine", "euclidean")
_LEAST = 1e-6  # a share that still has a logarithm


def neighbour_votes(
    similarities: Tensor, labels: Tensor, num_classes: int, neighbours: int, temperature: float | None
) -> Tensor:
    """Share of the votes that each class gets from the k most similar samples.

    Votes are alike, or exp(s / τ): Wu, Xiong, Yu & Lin, Unsupervised Feature Learning via Non-parametric Instance
    Discrimination, CVPR 2018, section 3.4.
    similarities: (n, m), labels: (m,), temperature: τ, None for votes that are alike -> (n, num_classes), rows sum to 1
    """
    nearest = similarities.topk(min(neighbours, similarities.shape[1]), dim=1)
    values = torch.zeros_like(nearest.values) if temperature is None else nearest.values / temperature
    votes = values.softmax(1)
    shares = votes.new_zeros(len(votes), num_classes)
    return shares.scatter_add(1, labels[nearest.indices], votes)


@HEADS.register("nearest_neighbours", "knn")
@final
@dataclass(frozen=True, kw_only=True)
class NearestNeighbours(HeadKind):
    """The classes of the k most similar training samples vote. A fit passes the training data through the model once.

    num_outputs: classes.
    neighbours: k. distance: "cosine" or "euclidean".
    weights: "similarity", exp(cosine / temperature) for each vote (of cosines alone), or "uniform".
    temperature: of these votes; 0.07 as in Wu et al. 2018 and DINO (Caron et al., ICCV 2021).
    The memory is saved with the model: one vector for each training sample.
    """

    num_outputs: int
    neighbours: int = 20
    distance: str = "cosine"
    weights: str = "similarity"
    temperature: float = 0.07

    task: ClassVar[TaskKind | None] = "multi_class"
    loss: ClassVar[str] = "cross_entropy"
    learns: ClassVar[bool] = False

    def check(self) -> None:
        """Names and signs."""
        if self.distance not in DISTANCES or self.weights not in WEIGHTS:
            raise ConfigurationError(
                f"distance={self.distance!r}, weights={self.weights!r}; possible: {', '.join(DISTANCES)}, and "
                f"{', '.join(WEIGHTS)}."
            )
        if self.distance == "euclidean" and self.weights == "similarity":
            raise ConfigurationError(
                "weights='similarity' are those of cosines; take distance='cosine', or weights='uniform'."
            )
        if self.neighbours < 1 or not self.temperature > 0:
            raise ConfigurationError(
                f"neighbours={self.neighbours}, temperature={self.temperature}; both are positive, 20 and 0.07 say."
            )

    def build(self, backbone: Backbone) -> nn.Module:
        """The head, its memory empty."""
        return MemoryHead(backbone.feature_size, self)


@final
class MemoryHead(VectorHead, Solvable):
    """(n, feature_size) -> log shares of the votes (n, num_outputs), shares of 0 as 1e-6. See NearestNeighbours."""

    learns: ClassVar[bool] = False
    keys: Tensor
    labels: Tensor

    def __init__(self, feature_size: int, kind: NearestNeighbours) -> None:
        super().__init__()
        self._outputs, self._neighbours, self._cosine = kind.num_outputs, kind.neighbours, kind.distance == "cosine"
        self._temperature = kind.temperature if kind.weights == "similarity" else None
        self.register_buffer("keys", torch.zeros(0, feature_size))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))

    @property
    def num_outputs(self) -> int:
        """Classes."""
        return self._outputs

    def forward(self, features: Tensor) -> Tensor:
        """Log shares."""
        if not len(self.labels):
            raise ConfigurationError("this head remembers no samples yet; fit fills its memory.")
        with torch.autocast(features.device.type, enabled=False):  # who is nearest takes all the digits there are
            similarities = self._similarities(features.to(self.keys))
        shares = neighbour_votes(similarities, self.labels, self._outputs, self._neighbours, self._temperature)
        return shares.clamp(min=_LEAST).log()

    def _similarities(self, features: Tensor) -> Tensor:
        """(n, remembered samples), more for nearer ones."""
        if self._cosine:
            return functional.normalize(features, dim=1) @ self.keys.T
        return -torch.cdist(features, self.keys)

    @torch.no_grad()
    def solve(self, features: Tensor, targets: Tensor) -> None:
        """Remember these samples and no others. targets: (n,) class numbers."""
        keys = functional.normalize(features, dim=1) if self._cosine else features
        self.keys = keys.to(self.keys)
        self.labels = targets.to(self.labels)

    def for_saved(self, state: Mapping[str, Tensor]) -> Self:
        """Itself, with room for the saved memory."""
        if {"keys", "labels"} <= set(state):
            self.keys = self.keys.new_zeros(state["keys"].shape)
            self.labels = self.labels.new_zeros(state["labels"].shape)
        return self
