"""SHOT: the body of a trained model is adapted to target samples while its classifier stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from ..method import METHODS, DomainStep, Look, Sizes, Term, TermMethod
from ._information import information
from ._nothing import nothing
from ._settings import check_at_least_zero

UNREAD = -1  # the label of samples that could not be read


@METHODS.register("shot")
@final
@dataclass(frozen=True, kw_only=True)
class SHOT(TermMethod):
    """Information maximisation, and labels from the nearest class centroid, found anew before every epoch.

    Liang, Hu & Feng, Do We Really Need to Access the Source Data? Source Hypothesis Transfer for Unsupervised Domain
    Adaptation, ICML 2020, equations 3 to 8. No source sample is read.

    weight: of information maximisation. pseudo_weight: of the cross-entropy to the centroids' labels. diversity: weight
    of the mean answer's entropy.
    """

    family: ClassVar[str] = "source_free"
    uses_source: ClassVar[bool] = False
    trains: ClassVar[str] = "body"
    weight: float = 1.0
    pseudo_weight: float = 0.3
    diversity: float = 1.0

    def check(self) -> None:
        """No weight is below 0."""
        for name in ("weight", "pseudo_weight", "diversity"):
            check_at_least_zero(name, getattr(self, name))

    def term(self, sizes: Sizes) -> Term:
        """Nothing that learns; it remembers the labels."""
        return _Term(self)


@final
class _Term(Term):
    pseudo_labels: Tensor

    def __init__(self, method: SHOT) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("pseudo_labels", torch.zeros(0, dtype=torch.long))  # (target samples,)

    def begin_epoch(self, epoch: int, look: Look) -> None:
        """Labels for all target samples, from where they lie now."""
        if self.method.pseudo_weight:
            features, outputs, places = look()
            labels = torch.full((int(places.max()) + 1,), UNREAD)
            labels[places.cpu()] = centroid_labels(features, outputs).cpu()
            self.pseudo_labels = labels.to(self.pseudo_labels.device)

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        method, target = self.method, step.target
        if not len(target):
            return {"information": nothing(target), "pseudo_labels": nothing(target)}
        losses = {"information": method.weight * information(target.outputs, method.diversity)}
        if len(self.pseudo_labels):
            labels = self.pseudo_labels[target.places.to(self.pseudo_labels.device)].to(target.outputs.device)
            losses["pseudo_labels"] = method.pseudo_weight * functional.cross_entropy(
                target.outputs, labels, ignore_index=UNREAD
            )
        return losses


@torch.no_grad()
def centroid_labels(features: Tensor, logits: Tensor) -> Tensor:
    """The class of the nearest centroid, first of centroids weighted by probability, then of those that this gives.

    Liang et al., SHOT, ICML 2020, equations 5 to 7; nearness is the cosine. A class that no sample is nearest to in the
    first round has no centroid in the second. features: (n, d), logits: (n, k) -> (n,) class numbers.
    """
    weights = logits.softmax(1)
    nearest = _nearest(features, weighted_centroids(features, weights), torch.ones_like(weights[0], dtype=torch.bool))
    chosen = functional.one_hot(nearest, logits.shape[1]).to(features.dtype)
    return _nearest(features, weighted_centroids(features, chosen), chosen.sum(0) > 0)


def weighted_centroids(features: Tensor, weights: Tensor) -> Tensor:
    """c_k = Σ_i w_ik f_i / Σ_i w_ik. features: (n, d), weights: (n, k) -> (k, d); 0 where no sample has weight."""
    return weights.T @ features / weights.sum(0).clamp(min=torch.finfo(weights.dtype).tiny)[:, None]


def _nearest(features: Tensor, centroids: Tensor, present: Tensor) -> Tensor:
    cosines = functional.normalize(features, dim=1) @ functional.normalize(centroids, dim=1).T
    return cosines.masked_fill(~present, -torch.inf).argmax(1)
