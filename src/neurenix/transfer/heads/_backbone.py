"""What a head has to know of the network that it is attached to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

from ...models import PretrainedModel
from ._measure import measure
from ._pyramid import Pyramid


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
    pyramid: measures the maps that it computes on its way. Raises ConfigurationError where there are none.
    """

    feature_size: int
    channels_last: bool
    prefix_tokens: int
    pools: bool
    domain: str
    name: str
    pyramid: Callable[[], Pyramid] = field(repr=False, compare=False)


def backbone_of(model: PretrainedModel) -> Backbone:
    """The facts of a model."""
    return Backbone(
        feature_size=model.feature_size,
        channels_last=model.pool.channels_last,
        prefix_tokens=model.pool.prefix_tokens,
        pools=model.architecture is not None,
        domain=model.domain,
        name=model.name,
        pyramid=lambda: measure(model),
    )
