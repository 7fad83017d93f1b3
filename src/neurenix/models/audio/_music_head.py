"""The head that says which event comes next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigurationError, InputMismatchError
from ...nn import TaskHead


@final
class NextEventHead(TaskHead):
    """Logits of the next event at each place, (n, t, vocabulary), by the trunk's embedding or a layer of its own.

    embedding: of the trunk, whose weights are the head's too; None for weights of its own.
    """

    task: ClassVar[str] = "generation"
    has_classes: ClassVar[bool] = False

    def __init__(self, vocabulary_size: int, width: int, embedding: nn.Embedding | None) -> None:
        super().__init__()
        self._embedding = [] if embedding is None else [embedding]  # in a list, so that it is the trunk's alone
        self.weight: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None
        self._num_outputs = vocabulary_size
        if embedding is None:
            self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(vocabulary_size, width)))
            self.bias = nn.Parameter(torch.zeros(vocabulary_size))

    @property
    def num_outputs(self) -> int:
        """Number of events."""
        return self._num_outputs

    def forward(self, features: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """(n, t, width) -> (n, t, vocabulary): at place t, logits of the event that comes behind it."""
        weight = self._embedding[0].weight if self._embedding else cast(Tensor, self.weight)
        return functional.linear(features, weight, self.bias)

    def losses(self, features: Tensor, inputs: Mapping[str, Tensor], targets: Tensor | None) -> dict[str, Tensor]:
        """{"next_event": mean cross entropy of each event under what was said at the place before it}.

        targets: (n, t), the events at each place, negative where they do not count; None for those of the inputs.
            Padding, where attention_mask is 0, does not count either.
        """
        wanted = inputs["input_ids"] if targets is None else targets
        if wanted.shape != features.shape[:2]:
            raise InputMismatchError(
                f"targets of shape {tuple(wanted.shape)} came for {tuple(features.shape[:2])} events; they are the "
                "events themselves, of which each is asked for at the place before it."
            )
        counts = wanted >= 0
        if "attention_mask" in inputs:
            counts = counts & (inputs["attention_mask"] != 0)
        wanted = wanted.masked_fill(~counts, -100)[:, 1:]
        logits = self(features[:, :-1], inputs).float()
        total = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum")
        return {"next_event": total / counts[:, 1:].sum().clamp(min=1)}

    def for_classes(self, num_outputs: int) -> Self:
        """Raises ConfigurationError: events are those of the vocabulary."""
        raise ConfigurationError(
            f"the next event is one of the vocabulary's {self.num_outputs}, and has no {num_outputs} classes of your "
            "own; to classify pieces, give num_classes to a tuner, which puts a classifier on the pooled features."
        )
