"""DAN: features whose means are equal for every smooth function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ....metrics import TaskKind
from ..method import METHODS, Side
from ._kernel_means import KernelMethod, gaussian_kernels, mean_discrepancy


def kernel_discrepancy(source: Tensor, target: Tensor, bandwidths: list[float], estimator: str = "unbiased") -> Tensor:
    """MK-MMD²: squared distance of the domains' mean embeddings under a mixture of Gaussian kernels.

    Long et al., DAN, ICML 2015, equations 1 and 2; see gaussian_kernels and mean_discrepancy. source: (n, d), target:
    (m, d) -> ()
    """
    return mean_discrepancy(gaussian_kernels(torch.cat([source, target]), bandwidths), len(source), estimator)


@METHODS.register("dan", "mmd")
@final
@dataclass(frozen=True, kw_only=True)
class DAN(KernelMethod):
    """The kernel distance between the domains' features is part of the loss.

    Long et al., Learning Transferable Features with Deep Adaptation Networks, ICML 2015, equation 4, on one layer.

    weight, bandwidths, estimator: see KernelMethod; the paper's estimator is unbiased.
    """

    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label", "regression")

    def distance(self, source: Side, target: Side) -> Tensor:
        """Between features."""
        return kernel_discrepancy(source.features, target.features, self.bandwidths, self.estimator)
