"""torchmetrics classes for what torchmetrics lacks, or computes in a way that ordinary data break.

Imported by the build functions alone, because torchmetrics takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
import torchmetrics
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

Score = Callable[[Tensor, Tensor], Tensor]


@final
class WholeSample(torchmetrics.Metric):
    """A score of all outputs and targets at once, which are kept until `compute`."""

    full_state_update = False
    outputs: list[Tensor]
    targets: list[Tensor]

    def __init__(self, score: Score) -> None:
        super().__init__()
        self.score = score
        self.add_state("outputs", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Keep outputs (n, …) and targets (n, …)."""
        self.outputs.append(outputs)
        self.targets.append(targets)

    def compute(self) -> Tensor:
        """The score of everything kept: ()."""
        return self.score(dim_zero_cat(self.outputs), dim_zero_cat(self.targets))


@final
class SampleMean(torchmetrics.Metric):
    """The mean over samples of a loss that each sample has by itself."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, losses: Score) -> None:
        super().__init__()
        self.losses = losses
        self.add_state("total", default=torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add the losses of outputs (n, …) against targets (n, …)."""
        self.total += self.losses(outputs, targets).sum()
        self.count += len(outputs)

    def compute(self) -> Tensor:
        """Mean loss: ()."""
        return self.total / self.count


@final
class FromCounts(torchmetrics.Metric):
    """A score of the counts of right and wrong decisions, per class.

    score: (true positives, false negatives, true negatives, false positives), each (c,) -> ().
    """

    full_state_update = False

    def __init__(self, counts: torchmetrics.Metric, score: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.counts, self.score = counts, score

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Count the decisions on outputs (n, …) against targets (n, …)."""
        self.counts.update(outputs, targets)

    def compute(self) -> Tensor:
        """The score of all counts: ()."""
        positive, false_positive, negative, false_negative, _ = self.counts.compute().double().unbind(-1)
        return self.score(positive, false_negative, negative, false_positive)

    def reset(self) -> None:
        """Forget all counts."""
        super().reset()
        self.counts.reset()
