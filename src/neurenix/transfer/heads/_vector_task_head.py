"""What heads share that read one vector per sample and bring their loss."""

from __future__ import annotations

import abc
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ...errors import LabelMismatchError
from ...nn import TaskHead


class VectorTaskHead(TaskHead):
    """A head that computes in the type of its weights, also where the body runs in bfloat16, which has three digits."""

    reads: ClassVar[Literal["features", "vector", "tokens"]] = "vector"

    @abc.abstractmethod
    def compute(self, features: Tensor) -> Tensor:
        """(n, feature_size) -> what the kind's docstring says."""

    def forward(self, features: Any, inputs: Any) -> Tensor:
        """What compute gives."""
        like = next(self.parameters())
        with torch.autocast(features.device.type, enabled=False):
            return self.compute(features.to(like.dtype))


def value_columns(targets: Any, values: int) -> Tensor:
    """Targets (n,) or (n, values) -> (n, values) float32. Raises LabelMismatchError for anything else."""
    if not isinstance(targets, Tensor) or targets[0].numel() != values:
        came = f"shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else f"{', '.join(targets)}"
        raise LabelMismatchError(
            f"the targets have {came}, but the head gives {values} values per sample; num_outputs must be their number."
        )
    return targets.reshape(len(targets), values).float()
