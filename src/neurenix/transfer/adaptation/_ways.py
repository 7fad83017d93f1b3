"""Methods that are no term of a loss: how each of them is called, and the model judged before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from ...errors import ConfigurationError
from ..heads._starts import last_linear
from ..tuner import Tuner
from ._data import DomainData
from ._judge import BeforeAndAfter, seen
from ._paired import SOURCE
from .gradual import GradualSelfTraining, adapt
from .method import AdaptationMethod
from .methods import AdaBN
from .methods.classical import ClassicalMethod, adapted_head


@final
@dataclass(frozen=True, kw_only=True)
class Way:
    """What lies between the domains. source: labelled samples. intermediate, pool: see DomainAdapter.fit."""

    source: Any
    target: Any
    intermediate: Sequence[Any]
    pool: Any
    data: DomainData


def adapted(tuner: Tuner, method: AdaptationMethod, way: Way, chooses: bool) -> BeforeAndAfter:
    """Adapt a trained tuner's model in place; gives what is known of it before and after."""
    assert way.data.judged is not None
    judged = BeforeAndAfter(tuner, way.data.judged, way.data.told, chooses)
    training = way.data.training
    if isinstance(method, GradualSelfTraining):
        adapt(
            tuner,
            method,
            way.source,
            way.target,
            way.intermediate,
            way.pool,
            batch_size=training.batch_size,
            num_workers=training.num_workers,
        )
    elif isinstance(method, AdaBN):
        device = next(tuner.model.parameters()).device
        method.apply(tuner.model, lambda: (batch.to(device) for batch in way.data.target.batches(0)))
    elif isinstance(method, ClassicalMethod):
        _solve_last_layer(tuner, method, way)
    else:
        raise ConfigurationError(f"nothing here knows how {type(method).__name__} adapts a model.")
    judged.end()
    return judged


def _solve_last_layer(tuner: Tuner, method: ClassicalMethod, way: Way) -> None:
    """Give the head's last layer the weights that are solved on what enters it, moved or weighted by the method."""
    layer = last_linear(tuner.model.head)
    if layer is None:
        raise ConfigurationError(
            f"{type(method).__name__} solves a linear layer, and the head of {tuner.model.name} has none; take a head "
            "that ends with one."
        )
    assert way.data.unshuffled is not None
    answers, rows = seen(tuner, way.data.unshuffled)
    features, source = answers[:, tuner.num_outputs :], rows[:, 0] == SOURCE
    weight, bias = adapted_head(method, features[source], rows[source, 1].long(), features[~source], layer.out_features)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
