"""Rotation: features that tell how far an image was turned, in both domains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ....errors import InputMismatchError
from ....metrics import TaskKind
from ..method import METHODS, DomainStep, Side, Sizes, Term, TermMethod
from ._aside import AsideTerm
from ._nothing import nothing
from ._settings import check_at_least_zero, check_one_of
from ._views import images_of

TURNS = 4
_DOMAINS = ("both", "target")


@METHODS.register("rotation")
@final
@dataclass(frozen=True, kw_only=True)
class Rotation(TermMethod):
    """A linear layer tells by the features whether an image was turned by 0, 90, 180 or 270 degrees.

    Sun et al., Unsupervised Domain Adaptation through Self-Supervision, 2019, equation 1 with the rotation task of
    Gidaris, Singh & Komodakis, ICLR 2018. For square images that have an upright position. Each domain is asked in a
    forward pass of its own, as there.

    weight: of the loss. domains: whose images are turned, "both" or "target".
    """

    family: ClassVar[str] = "self_supervised"
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label", "regression")
    reads_inputs: ClassVar[str | None] = "the images themselves are turned"
    weight: float = 1.0
    domains: str = "both"

    def check(self) -> None:
        """The domains are two words."""
        check_at_least_zero("weight", self.weight)
        check_one_of("domains", self.domains, _DOMAINS)

    def term(self, sizes: Sizes) -> Term:
        """A linear layer, features -> four turns."""
        return _Term(self, nn.Linear(sizes.features, TURNS))


@final
class _Term(AsideTerm):
    def __init__(self, method: Rotation, classifier: nn.Module) -> None:
        super().__init__()
        self.method, self.classifier = method, classifier

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        losses = [self._loss(side, step, domain) for domain, side in self.sides(step, self.method.domains)]
        loss = torch.stack(losses).mean() if losses else nothing(step.target)
        return {"rotation": self.method.weight * loss}

    def _loss(self, side: Side, step: DomainStep, domain: str) -> Tensor:
        images = images_of(side.inputs, "rotation", "Take 'contrastive' or 'masked_reconstruction'.")
        turns = torch.randint(TURNS, (len(images),), device=images.device)
        features, _ = self.ask_aside(step, turned(images, turns), domain)
        return functional.cross_entropy(self.classifier(features), turns)


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Each image turned counter-clockwise by 90 degrees, as often as its `turns` says.

    images: (n, channels, size, size). turns: (n,) of 0, 1, 2, 3. Raises InputMismatchError for images that are not
    square.
    """
    height, width = images.shape[2:]
    if height != width:
        raise InputMismatchError(
            f"rotation turns square images, and these have {height} x {width} pixels; resize or crop them in the "
            "model's preprocessing, or take 'contrastive'."
        )
    ways = torch.stack([images.rot90(count, (2, 3)) for count in range(TURNS)])
    return ways[turns, torch.arange(len(images), device=images.device)]
