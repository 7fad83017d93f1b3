"""Heads that bring their task with them: what they read of a model, their losses, and what a user is told."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from torch import Tensor, nn


class TaskHead(nn.Module, abc.ABC):
    """A head for boxes, masks, symbols per frame, the next token, ordered grades, values with their spread.

    It brings what else its task needs: its losses and the same head for other classes. A model with such a head
    answers with head(model.read(inputs), inputs); its pooled features are still there, for another head.

    task: one of metrics.TaskKind, e.g. "detection".
    reads: "features", what the trunk gives; "vector", what is pooled of it, (n, feature_size): such a head has no use
        for the inputs, and frozen layers below it run once for each sample; or "tokens", a pair of
        (n, tokens, feature_size), leading class tokens left out, and (n, tokens) bool, True where a token is real.
    needs: names of what it looks at of the inputs besides, when they are a mapping; "images" stands for their height
        and width alone. Frozen layers below a head that says so run once for each sample, and it is given these alone
        then, the images without channels. None: it may look at anything.
    has_token_targets: targets are tensors (n, tokens), one number for each of the tokens that it reads.
    layers: of which layers of the trunk it reads the outputs, as a tuple and in this order, by their names below the
        trunk; none for what the trunk gives.
    ignore_index: in targets, the number that is no class; None where there is none, or the head's record says it.
    has_classes: whether for_classes makes sense; of a language model's next tokens it does not.
    options: names of its settings that a user may change, numbers and yes or no; they are saved with a tuning.
    writes: whether its targets are texts that it has to write.
    """

    task: ClassVar[str]
    reads: ClassVar[Literal["features", "vector", "tokens"]] = "features"
    needs: ClassVar[tuple[str, ...] | None] = None
    has_token_targets: ClassVar[bool] = False
    ignore_index: ClassVar[int | None] = None
    layers: Sequence[str] = ()
    has_classes: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def num_outputs(self) -> int:
        """Number of classes or symbols that it tells apart."""

    @abc.abstractmethod
    def forward(self, features: Any, inputs: Any) -> Any:
        """features: what model.read gives for `inputs`. Gives what the head's or architecture's docstring says."""

    def answers(self, features: Any, inputs: Any) -> Any:
        """What a user is told, one for each sample, in the terms of `inputs`; by default what forward gives."""
        return self(features, inputs)

    def assessed(self, features: Any, inputs: Any, targets: Any) -> Any:
        """What metrics compare with the targets, by default what forward gives; of writers (written, target) texts."""
        return self(features, inputs)

    @abc.abstractmethod
    def losses(self, features: Any, inputs: Any, targets: Any) -> dict[str, Tensor]:
        """Named shares of the loss, each (), to be added up.

        targets: a tensor, or a mapping of tensors with the batch first, padded: labels by -1 or -100, boxes by 0.
        """

    def check_targets(self, targets: Any) -> None:  # noqa: B027  (most are content with what their data give)
        """Raise LabelMismatchError for a batch's targets that it cannot learn from."""

    def check_batch(self, inputs: Any, targets: Any) -> None:
        """The same where it takes the inputs to tell; by default check_targets."""
        self.check_targets(targets)

    @abc.abstractmethod
    def for_classes(self, num_outputs: int) -> Self:
        """The same head for other classes: what depends on them is new, the rest is kept.

        Raises ConfigurationError where the task has no classes of the user's own.
        """

    def for_saved(self, state: Mapping[str, Tensor]) -> TaskHead:
        """The same head as it was when its tensors were saved, where they tell more than the number of classes.

        state: the head's own tensors. By default itself.
        """
        return self
