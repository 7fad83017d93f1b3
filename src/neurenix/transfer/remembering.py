"""A fit of a head that has nothing to train: its memory is filled in one pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

from ..errors import ConfigurationError
from ..models import PretrainedModel
from ..nn import Solvable
from ..training import Features, History, RunOptions


def remember(
    model: PretrainedModel,
    features: Callable[[], Features],
    validate: Callable[[], dict[str, Any]] | None,
    options: RunOptions,
    history: History,
) -> History:
    """Fill the memory of the model's head, and add one record to the history. validate: gives its numbers.

    Raises ConfigurationError for a run that is to be written or gone on with: there is none.
    """
    if options.run or options.resume:
        raise ConfigurationError(
            "this head only remembers, in one pass, so there is no run to write or to go on with; leave run and resume "
            "out, and save the tuner."
        )
    started = time.perf_counter()
    known = features()
    cast(Solvable, model.head).solve(known.features, known.targets)
    record: dict[str, Any] = {"epoch": len(history), "phase": "memory", "learning_rates": {}}
    record |= {f"val_{name}": value for name, value in (validate() if validate else {}).items()}
    history.append({**record, "seconds": time.perf_counter() - started})
    return history
