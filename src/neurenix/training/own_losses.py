"""What a head that brings its task is asked: its own losses, of boxes, masks, symbols, next tokens or grades."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

from torch import nn

from ..data import Batch
from ..errors import LabelMismatchError
from .objective import StepResult, labelled


@final
class OwnLosses:
    """The sum of the losses that a model's TaskHead computes; its answers, while the model is not trained.

    num_outputs: of the head; larger class numbers are refused before anything is computed.
    reads_any: the head may look at anything of the inputs, see TaskHead.needs. check_batch: the head's own.
    """

    needs_whole_batches = False

    def __init__(
        self,
        task: str,
        num_outputs: int,
        *,
        reads_any: bool = True,
        check_batch: Callable[[Any, Any], None] | None = None,
    ) -> None:
        self.task, self.num_outputs, self._reads_any = task, num_outputs, reads_any
        self._check_batch = check_batch

    def reads_inputs(self, training: bool) -> str | None:
        """A head that does not say what of them it needs."""
        return f"this head for {self.task} may look at anything of its inputs" if self._reads_any else None

    def needs_modules(self, training: bool) -> bool:
        """The head has inputs of its own."""
        return True

    def __call__(self, model: nn.Module, batch: Batch) -> StepResult:
        """Forward and losses; in evaluation the trunk runs once for losses and answers."""
        targets = labelled(batch)
        if model.training:
            parts = model(batch.inputs, targets)
            return StepResult(sum(parts.values()), parts=parts)
        whole: Any = model
        features = whole.read(batch.inputs)
        parts = whole.head.losses(features, batch.inputs, targets)
        return StepResult(sum(parts.values()), whole.head.assessed(features, batch.inputs, targets), parts)

    def check(self, batch: Batch) -> None:
        """Class numbers of boxes have to be ones that the head tells apart; -1 is padding."""
        targets = labelled(batch)
        if self._check_batch is not None:
            self._check_batch(batch.inputs, targets)
        labels = targets.get("labels") if isinstance(targets, Mapping) else None
        if labels is not None and labels.numel() and int(labels.max()) >= self.num_outputs:
            row = int((labels >= self.num_outputs).flatten(1).any(1).nonzero()[0])
            raise LabelMismatchError(
                f"sample {int(batch.indices[row])} has class number {int(labels[row].max())}, but the head tells "
                f"{self.num_outputs} apart, 0 to {self.num_outputs - 1}; num_classes must be the number of classes."
            )
