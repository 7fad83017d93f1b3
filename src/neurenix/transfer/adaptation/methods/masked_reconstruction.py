"""MaskedReconstruction: what is hidden of a sample is told from what is left of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ....errors import ConfigurationError
from ....metrics import TaskKind
from ..method import METHODS, DomainStep, Side, Sizes, Term, TermMethod
from ._aside import AsideTerm
from ._nothing import nothing
from ._settings import check_at_least_zero, check_one_of, check_positive
from ._views import images_of, masked

_DOMAINS = ("both", "target")
_TOLD = ("features", "pixels")
_HIDDEN = 256


@METHODS.register("masked_reconstruction")
@final
@dataclass(frozen=True, kw_only=True)
class MaskedReconstruction(TermMethod):
    """A part of each sample is hidden, and a small network tells from the rest's features what the whole is.

    "features": those that the model has for the whole sample (Baevski et al., data2vec, ICML 2022, equation 1, with
    the model itself in the place of its moving average). For images, series, vectors and texts.
    "pixels": brightness in the hidden cells of a coarse grid, in units of the image's own spread (He et al., Masked
    Autoencoders, CVPR 2022, section 3, at the resolution that one pooled vector can hold). For images alone.

    weight: of the loss. predicts: "features" or "pixels". share: of a sample that is hidden. cells: rows and columns of
    the grid over an image. domains: "both" or "target".
    """

    family: ClassVar[str] = "self_supervised"
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label", "regression")
    reads_inputs: ClassVar[str | None] = "parts of the samples themselves are hidden"
    weight: float = 1.0
    predicts: str = "features"
    share: float = 0.5
    cells: int = 8
    domains: str = "both"

    def check(self) -> None:
        """Something is hidden, and something left."""
        check_at_least_zero("weight", self.weight)
        check_positive("cells", self.cells)
        check_one_of("predicts", self.predicts, _TOLD)
        check_one_of("domains", self.domains, _DOMAINS)
        if not 0 < self.share < 1:
            raise ConfigurationError(f"share={self.share}; a part is hidden, more than 0 and less than 1.")

    def term(self, sizes: Sizes) -> Term:
        """The network that tells, with one hidden layer."""
        told = sizes.features if self.predicts == "features" else self.cells**2
        return _Term(self, nn.Sequential(nn.Linear(sizes.features, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, told)))


@final
class _Term(AsideTerm):
    def __init__(self, method: MaskedReconstruction, decoder: nn.Module) -> None:
        super().__init__()
        self.method, self.decoder = method, decoder

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        losses = [self._loss(side, step, domain) for domain, side in self.sides(step, self.method.domains)]
        loss = torch.stack(losses).mean() if losses else nothing(step.target)
        return {"reconstruction": self.method.weight * loss}

    def _loss(self, side: Side, step: DomainStep, domain: str) -> Tensor:
        cells = self.method.cells
        if self.method.predicts == "features":
            rest, _ = masked(side.inputs, self.method.share, cells)
            return feature_loss(self.decoder(self.ask_aside(step, rest, domain)[0]), side.features.detach())
        images = images_of(side.inputs, "masked_reconstruction of pixels", "Take predicts='features'.")
        rest, chosen = masked(images, self.method.share, cells)
        assert chosen is not None
        told = self.decoder(self.ask_aside(step, rest, domain)[0]).view_as(chosen)
        return pixel_loss(told, coarse(images, cells), chosen)


def feature_loss(told: Tensor, features: Tensor) -> Tensor:
    """Mean squared difference to the features, of which each sample's have mean 0 and variance 1. (n, d) both -> ().

    Baevski et al., data2vec, ICML 2022, section 3.3, where so normalised targets keep features from becoming constant.
    """
    return functional.mse_loss(told, functional.layer_norm(features, features.shape[1:]))


def coarse(images: Tensor, cells: int) -> Tensor:
    """Mean brightness in the cells of a grid, less the image's mean, by its spread over the cells.

    images: (n, channels, height, width) -> (n, cells, cells); 0 for an image of one colour.
    """
    means = functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), cells).flatten(1)
    return functional.layer_norm(means, means.shape[1:]).view(len(images), cells, cells)


def pixel_loss(told: Tensor, brightness: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared difference in the hidden cells; 0 where none is. told, brightness, hidden: (n, rows, columns)."""
    squares = (told - brightness).square() * hidden
    return squares.sum() / hidden.sum().clamp(min=1)
