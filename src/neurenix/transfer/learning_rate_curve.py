"""What find_lr found: a curve and a suggestion."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import TrainingError


@dataclass(frozen=True)
class LearningRateCurve:
    """points: (learning rate, loss), rising in rate."""

    points: tuple[tuple[float, float], ...]

    @property
    def suggestion(self) -> float:
        """The rate at which the smoothed loss falls most steeply per decade, before it turns up.

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
        return rates[slopes.index(min(slopes))]

    def __str__(self) -> str:
        return f"suggested learning rate {self.suggestion:.1e} ({len(self.points)} rates tried)"


def smoothed(losses: list[float], decay: float = 0.8) -> list[float]:
    """Exponential moving average with bias correction (Kingma & Ba, Adam, ICLR 2015, section 3)."""
    average, result = 0.0, []
    for step, loss in enumerate(losses, start=1):
        average = decay * average + (1 - decay) * loss
        result.append(average / (1 - decay**step))
    return result
