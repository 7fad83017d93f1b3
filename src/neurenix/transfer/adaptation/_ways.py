"""Methods that are no term of a loss: how each of them is called, and the model judged before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from ...errors import ConfigurationError
from ..tuner import Tuner
from ._data import DomainData, Given
from ._judge import BeforeAndAfter
from .gradual import GradualSelfTraining, adapt
from .method import AdaptationMethod
from .methods import AdaBN
from .methods.classical import ClassicalMethod, install_adapted_head


@final
@dataclass(frozen=True, kw_only=True)
class Way:
    """What lies between the domains. intermediate, pool: see DomainAdapter.fit."""

    given: Given
    intermediate: Sequence[Any]
    pool: Any
    data: DomainData


def adapted(tuner: Tuner, method: AdaptationMethod, way: Way, chooses: bool) -> BeforeAndAfter | None:
    """Adapt a trained tuner's model in place; gives what is known of it before and after, None without a source."""
    by_target = isinstance(method, AdaBN)
    judged = None if way.data.judged is None else BeforeAndAfter(tuner, way.data, chooses, keeps_source=not by_target)
    given, training = way.given, way.data.training
    if isinstance(method, GradualSelfTraining):
        adapt(
            tuner,
            method,
            given.trained,
            given.target,
            way.intermediate,
            way.pool,
            batch_size=training.batch_size,
            num_workers=training.num_workers,
        )
    elif isinstance(method, AdaBN):
        device = next(tuner.model.parameters()).device
        method.apply(tuner.model, lambda: (batch.to(device) for batch in way.data.target.batches(0)))
    elif isinstance(method, ClassicalMethod):
        install_adapted_head(tuner, method, given.trained, given.target, training.batch_size, training.num_workers)
    else:
        raise ConfigurationError(f"nothing here knows how {type(method).__name__} adapts a model.")
    if judged is not None:
        judged.end()
    return judged
