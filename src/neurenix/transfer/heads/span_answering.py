"""Answers that stand in a text: the tokens where they begin and end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...data import NO_SPAN
from ...errors import ConfigurationError, LabelMismatchError
from ...metrics import TaskKind
from ...nn import TaskHead
from ._backbone import Backbone
from ._kind import HEADS, OWN, HeadKind
from ._starts import zeroed


def span_loss(logits: Tensor, spans: Tensor) -> Tensor:
    """Mean of the cross-entropies of first and last token, over the spans that are there; 0 where none is.

    Devlin et al., BERT, NAACL 2019, section 4.2. logits: (n, t, 2), spans: (n, 2) tokens, below 0 for none -> ()
    """
    there = (spans >= 0).all(1)
    losses = functional.cross_entropy(logits[there], spans[there], reduction="none")
    return losses.sum() / (2 * there.sum()).clamp(min=1)


def best_spans(logits: Tensor, allowed: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """The span i <= j < i + longest of allowed tokens with the largest start + end logit, and its probability.

    logits: (n, t, 2), allowed: (n, t) bool -> spans (n, 2) int64, probabilities (n,) among all such spans
    """
    scores = logits[:, :, :1] + logits[:, :, 1].unsqueeze(1)  # (n, first, last)
    valid = torch.ones_like(scores[0], dtype=torch.bool).triu().tril(longest - 1)
    valid = valid & allowed.unsqueeze(2) & allowed.unsqueeze(1)
    chances = scores.masked_fill(~valid, -torch.inf).flatten(1).softmax(1)
    share, place = chances.max(1)
    return torch.stack([place // logits.shape[1], place % logits.shape[1]], 1), share


@HEADS.register("span_answering", "question_answering")
@final
@dataclass(frozen=True, kw_only=True)
class SpanAnswering(HeadKind):
    """Two logits for each token, of an answer's beginning and end. Every question has an answer in its text.

    Data are neurenix.data.AnsweredTexts; or ready tokens of questions and texts with targets (n, 2), the first and the
    last token, below 0 for none. An answer that was cut off with the end of its text teaches nothing.

    longest: of an answer, in tokens. start: "default", or "zero".
    predict takes pairs (question, text) and gives answers as parts of the texts; of ready tokens
    {"first", "last", "probability"} for each sample. Metrics: exact_span and span_f1.
    """

    longest: int = 30
    start: str = "default"

    task: ClassVar[TaskKind | None] = "span_answering"
    loss: ClassVar[str] = OWN
    starts: ClassVar[tuple[str, ...]] = ("default", "zero")

    def check(self) -> None:
        """An answer has a token."""
        if self.longest < 1:
            raise ConfigurationError(f"longest={self.longest}; an answer has at least one token.")

    def build(self, backbone: Backbone) -> nn.Module:
        """The head."""
        head = SpanHead(backbone.feature_size, self.longest)
        return zeroed(head) if self.start == "zero" else head


@final
class SpanHead(TaskHead):
    """(tokens (n, t, feature_size), mask (n, t)) -> logits (n, t, 2), -inf for padding. See SpanAnswering."""

    task: ClassVar[str] = "span_answering"
    reads: ClassVar[Literal["features", "vector", "tokens"]] = "tokens"
    needs: ClassVar[tuple[str, ...] | None] = ("token_type_ids",)
    has_classes: ClassVar[bool] = False

    def __init__(self, feature_size: int, longest: int) -> None:
        super().__init__()
        self._longest = longest
        self.ends = nn.Linear(feature_size, 2)

    @property
    def num_outputs(self) -> int:
        """Beginning and end."""
        return 2

    def forward(self, features: Any, inputs: Any) -> Tensor:
        """Logits, in the type of the head's weights."""
        tokens, mask = features
        with torch.autocast(tokens.device.type, enabled=False):
            logits: Tensor = self.ends(tokens.to(self.ends.weight.dtype))
        return logits.masked_fill(~mask.unsqueeze(2), -torch.inf)

    def answers(self, features: Any, inputs: Any) -> list[dict[str, Any]]:
        """The most probable span of each sample."""
        spans, shares = best_spans(self(features, inputs), _allowed(features[1], inputs), self._longest)
        return [
            {"first": int(first), "last": int(last), "probability": float(share)}
            for (first, last), share in zip(spans.tolist(), shares.tolist(), strict=True)
        ]

    def assessed(self, features: Any, inputs: Any, targets: Any) -> Tensor:
        """First and last token of each answer, (n, 2)."""
        return best_spans(self(features, inputs), _allowed(features[1], inputs), self._longest)[0]

    def losses(self, features: Any, inputs: Any, targets: Any) -> dict[str, Tensor]:
        """targets: (n, 2)."""
        logits, lengths = self(features, inputs), features[1].sum(1)
        beyond = (targets[:, 1] >= lengths).nonzero().flatten()
        if len(beyond):
            row = int(beyond[0])
            raise LabelMismatchError(
                f"the targets name token {int(targets[row, 1])} of a text with {int(lengths[row])}; they are the first "
                "and the last token of each answer."
            )
        return {"span": span_loss(logits, targets.long())}

    def check_targets(self, targets: Any) -> None:
        """First and last, in this order, or none."""
        shaped = isinstance(targets, Tensor) and targets.ndim == 2 and targets.shape[1] == 2
        if not shaped or bool((targets[:, 0] > targets[:, 1]).any()) or bool((targets < NO_SPAN).any()):
            came = f"of shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else "a mapping"
            raise LabelMismatchError(
                f"the targets are {came}; this head needs the first and the last token of each answer, (n, 2), the "
                "first not behind the last, or -1 and -1; questions with texts are neurenix.data.AnsweredTexts."
            )

    def for_classes(self, num_outputs: int) -> Self:
        """There are none."""
        raise ConfigurationError("a head for answers in a text has no classes; leave num_classes out.")


def _allowed(mask: Tensor, inputs: Any) -> Tensor:
    """(n, t): the tokens that may be an answer's: those of the second text, where the inputs tell, but its last one.

    The last one is the mark that closes it, in all tokenizers that number the texts of a pair.
    """
    types = inputs.get("token_type_ids") if isinstance(inputs, dict) else None
    if types is None or not bool((types == 1).any(1).all()):
        return mask
    last = torch.arange(mask.shape[1], device=mask.device) == mask.sum(1, keepdim=True) - 1
    return mask & (types == 1) & ~last
