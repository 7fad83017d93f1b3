"""Which way a logged quantity is better, and whether it became so."""

from __future__ import annotations

import math
import warnings
from typing import Literal, final

from ..errors import ConfigurationError, NeurenixWarning, UnknownNameError
from ..metrics import find_metric
from ._base import Logs

Mode = Literal["auto", "min", "max"]


@final
class Monitor:
    """A logged quantity by name. mode="auto": a loss falls; a metric goes the way its registry entry says."""

    def __init__(self, name: str, mode: Mode = "auto", min_delta: float = 0.0) -> None:
        if mode not in ("auto", "min", "max"):
            raise ConfigurationError(f"mode={mode!r}; possible: 'auto', 'min', 'max'.")
        if not min_delta >= 0:
            raise ConfigurationError(f"min_delta={min_delta!r} must be at least 0; the mode says which way is better.")
        self.name = name
        self._mode = mode
        self._min_delta = min_delta

    def read(self, logs: Logs, epoch: int) -> float:
        """The value in an epoch's logs; NaN and infinity are reported.

        Raises UnknownNameError naming what is logged, or ConfigurationError for what has no order.
        """
        value = logs.get(self.name)
        if value is None:
            hint = "Give fit() a validation dataset." if self.name.startswith("val_") else ""
            raise UnknownNameError("logged quantity", self.name, logs, hint=hint)
        if not isinstance(value, (int, float)):
            raise ConfigurationError(
                f"monitor={self.name!r} is a {type(value).__name__}; only a number can be monitored."
            )
        self._higher_is_better()
        if not math.isfinite(value):
            warnings.warn(
                f"{self.name} is {value} in epoch {epoch + 1}; that counts as no improvement.",
                NeurenixWarning,
                stacklevel=3,
            )
        return float(value)

    def is_better(self, value: float, reference: float | None) -> bool:
        """Whether `value` beats `reference` by more than min_delta; anything finite beats None."""
        if not math.isfinite(value):
            return False
        if reference is None:
            return True
        gain = value - reference if self._higher_is_better() else reference - value
        return gain > self._min_delta

    def _higher_is_better(self) -> bool:
        if self._mode != "auto":
            return self._mode == "max"
        name = self.name.removeprefix("val_")
        if name.endswith("loss") or name == "seconds":
            return False
        try:
            better = find_metric(name).higher_is_better
        except UnknownNameError:
            better = None
        if better is None:
            raise ConfigurationError(
                f"mode='auto' cannot tell whether {self.name!r} should rise or fall; say 'min' or 'max'."
            )
        return better
