"""KLIEP: weights under which the source is nearest to the target in Kullback-Leibler divergence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .....errors import ConfigurationError
from ...method import METHODS
from ._method import AdaptedFeatures, ClassicalMethod
from ._skada import of_mean_one

_WIDTHS = (0.1, 0.3, 1.0, 3.0, 10.0)  # of the kernel, times 1 / (features · variance)
_FOLDS = 5
_SMALLEST = 1e-300


@METHODS.register("kliep")
@final
@dataclass(frozen=True, kw_only=True)
class KLIEP(ClassicalMethod):
    """w(x) = Σ αⱼ exp(-γ ‖x - cⱼ‖²) with the largest mean log w of the target, and the mean 1 on the source.

    Sugiyama et al., Direct Importance Estimation for Covariate Shift Adaptation, Annals of the Institute of Statistical
    Mathematics 2008, equation 12, γ by the likelihood of target samples left out (section 3.2). (skada's adapter of
    that name steps by 2e-16 and stays where it starts, so it is not used.)
    gamma: of the kernel; None tries five around 1 / (features · variance). centres: target samples that are centres.
    steps: of the solver. seed: of the choice of centres.
    """

    gamma: float | None = None
    centres: int = 100
    steps: int = 500
    seed: int = 0

    def check(self) -> None:
        """All are positive."""
        if self.gamma is not None and not self.gamma > 0:
            raise ConfigurationError(f"gamma={self.gamma}; it is positive, or None.")
        if self.centres < 1 or self.steps < 1:
            raise ConfigurationError(f"centres={self.centres}, steps={self.steps}; both are at least 1.")

    def _adapted(self, source: Tensor, labels: Tensor, target: Tensor) -> AdaptedFeatures:
        order = torch.randperm(len(target), generator=torch.Generator().manual_seed(self.seed))
        centres = target[order[: self.centres]]
        gamma = self._chosen_gamma(source, target, centres, order) if self.gamma is None else self.gamma
        kernel = _kernel(target, centres, gamma), _kernel(source, centres, gamma)
        shares = kernel_shares(*kernel, self.steps)
        return AdaptedFeatures(source, weights=of_mean_one(kernel[1] @ shares))

    def _chosen_gamma(self, source: Tensor, target: Tensor, centres: Tensor, order: Tensor) -> float:
        """The width under which target samples that were left out are most probable."""
        usual = 1 / (target.shape[1] * float(torch.cat([source, target]).var()))
        folds = [order[fold :: min(_FOLDS, len(order))] for fold in range(min(_FOLDS, len(order)))]

        def likelihood(gamma: float) -> float:
            at_target, at_source = _kernel(target, centres, gamma), _kernel(source, centres, gamma)
            scores = []
            for fold in folds:
                known = torch.ones(len(target), dtype=torch.bool)
                known[fold] = False
                shares = kernel_shares(at_target[known], at_source, self.steps)
                scores.append(float((at_target[fold] @ shares).clamp(min=_SMALLEST).log().mean()))
            return sum(scores)

        return max((width * usual for width in _WIDTHS), key=likelihood)


def kernel_shares(at_target: Tensor, at_source: Tensor, steps: int) -> Tensor:
    """argmax_α mean log(A α) under α ≥ 0 and mean(B α) = 1: KLIEP's problem, which is concave.

    With b the columns' means of B, the bⱼ αⱼ are the shares of a mixture of the densities Aⱼ / bⱼ, so that each step of
    the EM algorithm for them (Dempster, Laird & Rubin 1977) makes the likelihood larger, without a step size.
    at_target: A (m, c), at_source: B (n, c), kernels at samples and centres -> (c,)
    """
    means = at_source.mean(0).clamp(min=_SMALLEST)
    densities = at_target / means
    shares = torch.full_like(means, 1 / len(means))
    for _ in range(steps):
        shares = shares * (densities / (densities @ shares).clamp(min=_SMALLEST).unsqueeze(1)).mean(0)
    return shares / shares.sum() / means


def _kernel(samples: Tensor, centres: Tensor, gamma: float) -> Tensor:
    """Gaussian kernel, (n, d) and (c, d) -> (n, c)."""
    return (-gamma * torch.cdist(samples, centres).square()).exp()
