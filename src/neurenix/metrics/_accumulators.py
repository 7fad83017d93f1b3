"""torchmetrics classes for what torchmetrics lacks, or computes in a way that ordinary data break.

Imported by the build functions alone, because torchmetrics takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
import torchmetrics
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from .entities import check_entity_tags, entities_of

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
class EntityF1(torchmetrics.Metric):
    """2 · right / (found + there), of entities with the right kind and the right first and last token."""

    full_state_update = False
    right: Tensor
    found: Tensor
    there: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._names: tuple[str, ...] = ()
        for state in ("right", "found", "there"):
            self.add_state(state, default=torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def name_outputs(self, names: Sequence[str]) -> None:
        """Say what the tags are called, in order, before any are counted. Raises ConfigurationError for other tags."""
        check_entity_tags(names)
        self._names = tuple(names)

    def update(self, decided: Tensor, targets: Tensor) -> None:
        """Count the entities of some sequences (n, tokens) of tags; tokens whose target is below 0 are left out."""
        check_entity_tags(self._names)
        for answer, tags in zip(decided.cpu(), targets.cpu(), strict=True):
            tagged = tags >= 0
            found, there = (entities_of([self._names[tag] for tag in row[tagged].tolist()]) for row in (answer, tags))
            self.right += len(found & there)
            self.found += len(found)
            self.there += len(there)

    def compute(self) -> Tensor:
        """(): NaN where no entity was found and none is there."""
        return 2 * self.right.double() / (self.found + self.there)


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
