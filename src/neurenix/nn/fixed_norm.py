"""A batch norm that learned and counts no more."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn


@final
class FixedNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) · weight + bias by channel, with numbers that neither training nor data change.

    Maps and sequences (n, num_features, …) in any number of dimensions.
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features, self.eps = num_features, eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, features: Tensor) -> Tensor:
        """(n, num_features, …) -> the same."""
        mean, variance, weight, bias = (
            self.get_buffer(name) for name in ("running_mean", "running_var", "weight", "bias")
        )
        return nn.functional.batch_norm(features, mean, variance, weight, bias, eps=self.eps)

    def extra_repr(self) -> str:
        """What print(model) shows of it."""
        return f"{self.num_features}, eps={self.eps}"
