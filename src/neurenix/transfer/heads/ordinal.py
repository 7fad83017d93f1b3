"""Ordered grades: how far up the scale, asked step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigurationError, LabelMismatchError
from ...metrics import TaskKind
from ...nn import Solvable, build_head
from ...training import multi_label_head
from ._backbone import Backbone
from ._kind import HEADS, OWN, HeadKind
from ._linear_part import set_linear
from ._starts import zeroed
from ._vector_task_head import VectorTaskHead


def corn_loss(logits: Tensor, grades: Tensor) -> Tensor:
    """Mean binary cross-entropy of "higher than k?", each asked of the samples that are at least k.

    Shi, Cao & Raschka, Deep Neural Networks for Rank-Consistent Ordinal Regression Based On Conditional Probabilities
    (CORN), Pattern Analysis and Applications 26 (2023), eq. 7; their sum over questions divided by all questions asked.
    logits: (n, grades - 1), of P(y > k | y >= k); grades: (n,) 0 … grades - 1 -> ()
    """
    steps = torch.arange(logits.shape[1], device=logits.device)
    asked = grades.unsqueeze(1) >= steps
    higher = (grades.unsqueeze(1) > steps).to(logits.dtype)
    losses = functional.binary_cross_entropy_with_logits(logits, higher, reduction="none")
    return (losses * asked).sum() / asked.sum()


def grade_probabilities(logits: Tensor) -> Tensor:
    """P(y = k) from P(y > k) = Π over j <= k of P(y > j | y >= j), which falls with k by construction.

    The same paper, eq. 5. logits: (n, grades - 1) -> (n, grades), rows sum to 1
    """
    higher = logits.sigmoid().cumprod(1)
    ones = higher.new_ones(len(higher), 1)
    return torch.cat([ones, higher], 1) - torch.cat([higher, 0 * ones], 1)


def decoded_grades(logits: Tensor) -> Tensor:
    """Number of k with P(y > k) > 1/2: the median grade. The same paper, eq. 6. (n, grades - 1) -> (n,) int64"""
    return (logits.sigmoid().cumprod(1) > 0.5).sum(1)


@HEADS.register("ordinal", "corn")
@final
@dataclass(frozen=True, kw_only=True)
class Ordinal(HeadKind):
    """Grades in an order, such as stages of a disease, by CORN: to be off by two is worse than by one.

    num_outputs: grades; class names are in this order. A dataset that names its classes orders them by name, so give
        numbers, or names that sort ("1 mild", "2 severe").
    dropout_rate: before the linear layer. start: "default", "zero", "closed_form" (each question by ridge regression).
    predict gives the median grade, predict_proba the probability of each; metrics are mae (in grades) and accuracy.
    """

    num_outputs: int
    dropout_rate: float = 0.0
    start: str = "default"

    task: ClassVar[TaskKind | None] = "ordinal"
    loss: ClassVar[str] = OWN
    starts: ClassVar[tuple[str, ...]] = ("default", "zero", "closed_form")

    def check(self) -> None:
        """An order is one of two grades at least."""
        if self.num_outputs < 2:
            raise ConfigurationError(f"num_outputs={self.num_outputs}; grades are two at least.")

    def build(self, backbone: Backbone) -> nn.Module:
        """The head."""
        head = OrdinalHead(backbone.feature_size, self.num_outputs, self.dropout_rate)
        return zeroed(head) if self.start == "zero" else head


@final
class OrdinalHead(VectorTaskHead, Solvable):
    """(n, feature_size) -> logits (n, grades - 1) of "higher than k, given at least k?". See Ordinal."""

    task: ClassVar[str] = "ordinal"

    def __init__(self, feature_size: int, num_outputs: int, dropout_rate: float) -> None:
        super().__init__()
        self._size, self._outputs, self._dropout_rate = feature_size, num_outputs, dropout_rate
        self.steps = build_head(feature_size, num_outputs - 1, dropout_rate=dropout_rate)

    @property
    def num_outputs(self) -> int:
        """Grades."""
        return self._outputs

    def compute(self, features: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.steps(features)
        return logits

    def answers(self, features: Any, inputs: Any) -> Tensor:
        """The median grade of each sample, (n,)."""
        return decoded_grades(self(features, inputs))

    def assessed(self, features: Any, inputs: Any, targets: Any) -> Tensor:
        """The same as values, (n, 1)."""
        return self.answers(features, inputs).float().unsqueeze(1)

    def probabilities(self, features: Any, inputs: Any) -> Tensor:
        """Of each grade, (n, grades)."""
        return grade_probabilities(self(features, inputs))

    def losses(self, features: Any, inputs: Any, targets: Any) -> dict[str, Tensor]:
        """targets: (n,) grades."""
        return {"corn": corn_loss(self(features, inputs), targets)}

    def check_targets(self, targets: Any) -> None:
        """Grades are whole numbers of the scale."""
        wrong = not isinstance(targets, Tensor) or targets.ndim != 1 or targets.is_floating_point()
        if wrong or bool(((targets < 0) | (targets >= self._outputs)).any()):
            raise LabelMismatchError(
                f"grades are whole numbers from 0 to {self._outputs - 1}, one for each sample, and the targets hold "
                f"{_described(targets)}; num_outputs must be the number of grades, which begin with 0."
            )

    def for_classes(self, num_outputs: int) -> Self:
        """The same with another number of grades."""
        return type(self)(self._size, num_outputs, self._dropout_rate)

    def solve(self, features: Tensor, targets: Tensor) -> None:
        """Each question by ridge regression on the samples that it is asked of. targets: (n,) grades."""
        rows = []
        for step in range(self._outputs - 1):
            asked = targets >= step
            if not bool(asked.any()):
                raise LabelMismatchError(
                    f"no sample has a grade of {step} or more, so start='closed_form' cannot tell the grades above; "
                    "add samples, or lower num_outputs."
                )
            rows.append(multi_label_head(features[asked], (targets[asked] > step).unsqueeze(1)))
        set_linear(self.steps, torch.cat([row.weight for row in rows]), torch.cat([row.bias for row in rows]))


def _described(targets: Any) -> str:
    if not isinstance(targets, Tensor):
        return ", ".join(targets)
    low, high = targets.min().item(), targets.max().item()
    return f"{str(targets.dtype).removeprefix('torch.')} of shape {tuple(targets.shape)} from {low} to {high}"
