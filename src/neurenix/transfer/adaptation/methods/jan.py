"""JAN: features and predictions whose joint distribution is the same in both domains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..method import METHODS, Side
from ._kernel_means import KernelMethod, gaussian_kernels, mean_discrepancy, squared_distances

PROBABILITY_BANDWIDTH = 1.68  # of the authors' code; squared distances between probabilities are at most 2


def joint_discrepancy(
    source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], bandwidths: list[float], estimator: str = "unbiased"
) -> Tensor:
    """JMMD²: MMD² under the product of a kernel of features and one of probabilities.

    Long et al., Deep Transfer Learning with Joint Adaptation Networks, ICML 2017, section 4.1. The kernel of features
    is that of DAN; that of probabilities is exp(−||p − q||² / 1.68). source: features (n, d) and logits (n, k), target:
    (m, d) and (m, k) -> ()
    """
    features = torch.cat([source[0], target[0]])
    probabilities = torch.cat([source[1], target[1]]).softmax(1)
    kernel = gaussian_kernels(features, bandwidths) * torch.exp(
        -squared_distances(probabilities) / PROBABILITY_BANDWIDTH
    )
    return mean_discrepancy(kernel, len(source[0]), estimator)


@METHODS.register("jan")
@final
@dataclass(frozen=True, kw_only=True)
class JAN(KernelMethod):
    """The kernel distance between the domains' features together with what is predicted of them is part of the loss.

    Long et al., Deep Transfer Learning with Joint Adaptation Networks, ICML 2017, equation 9.

    weight, bandwidths, estimator: see KernelMethod.
    """

    def distance(self, source: Side, target: Side) -> Tensor:
        """Between features with their predictions."""
        layers = [(side.features, side.outputs) for side in (source, target)]
        return joint_discrepancy(layers[0], layers[1], self.bandwidths, self.estimator)
