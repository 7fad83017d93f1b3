"""Published heads that read more than one vector per sample: maps, tokens, a pyramid of maps."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import Tensor, nn


class UnpooledHead(nn.Module, abc.ABC):
    """What stands on a trunk's unpooled features: boxes, masks, symbols per frame, the next token.

    It brings what else its task needs: its losses and the same head for other classes. A model with such a head
    answers with head(trunk(inputs), inputs); its pooled features are still there, for another head.

    task: one of the architecture's tasks, e.g. "detection".
    has_classes: whether for_classes makes sense; of a language model's next tokens it does not.
    options: names of its settings that a user may change, numbers and yes or no; they are saved with a tuning.
    writes: whether its targets are texts that it has to write.
    """

    task: ClassVar[str]
    has_classes: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def num_outputs(self) -> int:
        """Number of classes or symbols that it tells apart."""

    @abc.abstractmethod
    def forward(self, features: Any, inputs: Any) -> Any:
        """features: what the trunk gives for `inputs`. Gives what the architecture's docstring says."""

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

    @abc.abstractmethod
    def for_classes(self, num_outputs: int) -> Self:
        """The same head for other classes: what depends on them is new, the rest is kept.

        Raises ConfigurationError where the task has no classes of the user's own.
        """

    def for_saved(self, state: Mapping[str, Tensor]) -> UnpooledHead:
        """The same head as it was when its tensors were saved, where they tell more than the number of classes.

        state: the head's own tensors. By default itself.
        """
        return self
