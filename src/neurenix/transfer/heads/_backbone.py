"""What a head has to know of the network that it is attached to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ...models import PretrainedModel


@final
@dataclass(frozen=True, kw_only=True)
class Backbone:
    """Facts of a model without its head, read from it, never asked of its name.

    feature_size: of the pooled vector, and of a token.
    channels_last: its features are tokens (n, tokens, channels) or maps (n, height, width, channels).
    prefix_tokens: leading tokens that are no places: class, register and distillation tokens.
    pools: it pools its features itself, so that maps and tokens may come out of it before; a module of the user's own
        gives whatever entered its head.
    domain: "vision", "nlp", "audio", or "custom".
    name: of the architecture, for messages.
    """

    feature_size: int
    channels_last: bool
    prefix_tokens: int
    pools: bool
    domain: str
    name: str


def backbone_of(model: PretrainedModel) -> Backbone:
    """The facts of a model."""
    return Backbone(
        feature_size=model.feature_size,
        channels_last=model.pool.channels_last,
        prefix_tokens=model.pool.prefix_tokens,
        pools=model.architecture is not None,
        domain=model.domain,
        name=model.name,
    )
