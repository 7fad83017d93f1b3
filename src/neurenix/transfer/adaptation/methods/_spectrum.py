"""Singular values of what a batch gives."""

from __future__ import annotations

import torch
from torch import Tensor


def singular_values(matrix: Tensor) -> Tensor:
    """(n, d) -> (min(n, d),), the largest first; NaN where the matrix holds NaN or infinity.

    torch refuses such a matrix with an error of its own; as a loss, it is the loop that says what is not finite.
    """
    if not bool(matrix.isfinite().all()):
        return matrix.sum() * torch.full((min(matrix.shape),), torch.nan, device=matrix.device)
    values: Tensor = torch.linalg.svdvals(matrix)
    return values
