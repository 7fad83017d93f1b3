"""One class for each token: names in a text, parts of speech, what each patch of an image shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...data import NO_TAG
from ...errors import ConfigurationError, LabelMismatchError
from ...metrics import TaskKind
from ...nn import TaskHead, build_head
from ._backbone import Backbone
from ._kind import HEADS, OWN, HeadKind
from ._starts import zeroed

_PADDING = -1  # that loaders put behind a sequence's end


def tagging_loss(logits: Tensor, tags: Tensor) -> Tensor:
    """Mean of -log softmax(logits)[tag] over the tokens that have a tag; 0 where none has.

    logits: (n, t, k); tags: (n, t) class numbers, below 0 where there is none -> ()
    """
    tagged = tags >= 0
    total = functional.cross_entropy(logits[tagged], tags[tagged], reduction="sum")
    return total / tagged.sum().clamp(min=1)


@HEADS.register("token_tagging", "tagging", "token_classification")
@final
@dataclass(frozen=True, kw_only=True)
class TokenTagging(HeadKind):
    """A linear layer on every token, for backbones that give tokens, or a map, whose places are taken row by row.

    Data are neurenix.data.TaggedTexts, a tag for each word, which its first token gets; or ready inputs with targets
    (n, tokens). Class tokens and the like of a ViT are left out, and so is padding; special tokens of a text and the
    later parts of a word have no tag.

    num_outputs: tags. ignore_index: in targets, a token without a tag; below 0.
    dropout_rate: before the layer. start: "default", or "zero".
    predict gives one list for each text, a tag for each word (None where the text was cut before it); of other inputs
    an array (tokens,) of numbers for each sample. Metrics are those of classes, over all tokens that have a tag;
    with tags called B-…, I-… and O also entity_f1, of whole entities.
    """

    num_outputs: int
    ignore_index: int = NO_TAG
    dropout_rate: float = 0.0
    start: str = "default"

    task: ClassVar[TaskKind | None] = "token_tagging"
    loss: ClassVar[str] = OWN
    starts: ClassVar[tuple[str, ...]] = ("default", "zero")

    def check(self) -> None:
        """Classes begin with 0."""
        if self.ignore_index >= 0:
            raise ConfigurationError(
                f"ignore_index={self.ignore_index}; it is below 0, as tags are numbered from 0 on: -100 say."
            )
        if self.num_outputs < 2:
            raise ConfigurationError(f"num_outputs={self.num_outputs}; tags are two at least.")

    def build(self, backbone: Backbone) -> nn.Module:
        """The head."""
        head = TaggingHead(backbone.feature_size, self.num_outputs, self.ignore_index, self.dropout_rate)
        return zeroed(head) if self.start == "zero" else head


@final
class TaggingHead(TaskHead):
    """(tokens (n, t, feature_size), mask (n, t)) -> logits (n, t, num_outputs). See TokenTagging."""

    task: ClassVar[str] = "token_tagging"
    reads: ClassVar[Literal["features", "vector", "tokens"]] = "tokens"
    needs: ClassVar[tuple[str, ...] | None] = ()
    has_token_targets: ClassVar[bool] = True

    def __init__(self, feature_size: int, num_outputs: int, ignore_index: int, dropout_rate: float) -> None:
        super().__init__()
        self._arguments = (ignore_index, dropout_rate)
        self._size, self._outputs, self._ignored = feature_size, num_outputs, {ignore_index, _PADDING, NO_TAG}
        self.classify = build_head(feature_size, num_outputs, dropout_rate=dropout_rate)

    @property
    def num_outputs(self) -> int:
        """Tags."""
        return self._outputs

    def forward(self, features: Any, inputs: Any) -> Tensor:
        """Logits, in the type of the head's weights."""
        tokens, _ = features
        like = next(self.parameters())
        with torch.autocast(tokens.device.type, enabled=False):
            logits: Tensor = self.classify(tokens.to(like.dtype))
        return logits

    def answers(self, features: Any, inputs: Any) -> list[Tensor]:
        """The most probable tag of every real token, (tokens,) for each sample."""
        decided, mask = self(features, inputs).argmax(2), features[1]
        return [tags[real] for tags, real in zip(decided, mask, strict=True)]

    def losses(self, features: Any, inputs: Any, targets: Any) -> dict[str, Tensor]:
        """targets: (n, t), below 0 where there is no tag. Padding has none, whatever the targets say."""
        logits, mask = self(features, inputs), features[1]
        if tuple(targets.shape) != tuple(mask.shape):
            raise LabelMismatchError(
                f"targets of shape {tuple(targets.shape)} came for tokens {tuple(mask.shape)}; they are one tag for "
                "each token of the network's features, class tokens left out, below 0 where there is none."
            )
        return {"tagging": tagging_loss(logits, targets.long().where(mask, _PADDING))}

    def check_targets(self, targets: Any) -> None:
        """Tags are numbers of the head, or the index that is ignored."""
        if not isinstance(targets, Tensor) or targets.ndim != 2 or bool((targets != targets.round()).any()):
            came = f"of shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else "a mapping"
            raise LabelMismatchError(
                f"the targets are {came}, and a head with num_outputs={self._outputs} tags needs whole numbers "
                "(n, tokens); texts with a tag for each word are neurenix.data.TaggedTexts."
            )
        strange = {number for number in targets.unique().tolist() if number < 0} - self._ignored
        if strange or int(targets.max()) >= self._outputs:
            raise LabelMismatchError(
                f"the targets hold tags {sorted({*strange, int(targets.max())})}; num_outputs={self._outputs} tells "
                f"0 to {self._outputs - 1} apart, and {min(self._ignored)} stands for none."
            )

    def for_classes(self, num_outputs: int) -> Self:
        """The same for other tags."""
        return type(self)(self._size, num_outputs, *self._arguments)
