"""What find_lr found: a curve and a suggestion."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

from ..data import DataLoader
from ..errors import ConfigurationError, NonFiniteError, TrainingError
from ..memory import kept_memory
from ..training import Loop

_FEWEST = 10  # steps; fewer say nothing


@dataclass(frozen=True)
class LearningRateCurve:
    """points: (learning rate, loss), rising in rate; it ends where the loss is no number any more."""

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not self.points:
            raise NonFiniteError(
                "the loss is NaN or infinite before anything was learned, so no rate can be found; look for NaN or "
                "very large values in inputs and targets."
            )

    @property
    def suggestion(self) -> float:
        """The rate at which the smoothed loss falls most steeply per decade, a tenth of that of its minimum at most.

        At the minimum the steps are as large as the model can bear, and a whole fit needs smaller ones.
        Raises TrainingError when the loss never falls.
        """
        rates = [rate for rate, _ in self.points]
        losses = smoothed([loss for _, loss in self.points])
        lowest = losses.index(min(losses))
        slopes = [
            (losses[i + 1] - losses[i]) / math.log(rates[i + 1] / rates[i]) for i in range(min(lowest, len(rates) - 1))
        ]
        if not slopes or min(slopes) >= 0:
            raise TrainingError(
                "the loss did not fall at any learning rate tried; check labels and inputs, or widen lowest/highest."
            )
        return max(rates[0], min(rates[slopes.index(min(slopes))], rates[lowest] / 10))

    def __str__(self) -> str:
        return f"suggested learning rate {self.suggestion:.1e} ({len(self.points)} rates tried)"


@kept_memory()
def try_rates(loop: Loop, loader: DataLoader, lowest: float, highest: float, steps: int) -> LearningRateCurve:
    """The curve of a range test; the loop's model is put back as it was."""
    before = copy.deepcopy(loop.model.state_dict())
    try:
        return LearningRateCurve(tuple(loop.range_test(loader, lowest, highest, steps)))
    finally:
        loop.model.load_state_dict(before)
        loop.model.zero_grad(set_to_none=True)


def check_range(lowest: float, highest: float, steps: int) -> None:
    """Raise ConfigurationError for rates that cannot be tried."""
    if not 0 < lowest < highest < math.inf:
        raise ConfigurationError(
            f"lowest={lowest}, highest={highest}; both are learning rates, above 0, the lowest below the highest."
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < _FEWEST:
        raise ConfigurationError(f"steps={steps!r}; it is the number of rates that are tried, at least {_FEWEST}.")


def smoothed(losses: list[float], decay: float = 0.8) -> list[float]:
    """Exponential moving average with bias correction (Kingma & Ba, Adam, ICLR 2015, section 3)."""
    average, result = 0.0, []
    for step, loss in enumerate(losses, start=1):
        average = decay * average + (1 - decay) * loss
        result.append(average / (1 - decay**step))
    return result
