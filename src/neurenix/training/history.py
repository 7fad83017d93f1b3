"""What happened, epoch by epoch."""

from __future__ import annotations

import math
from typing import Any, final


@final
class History:
    """One record per epoch over all fits: epoch, phase, loss, metrics, val_…, learning rates, seconds.

    `history["val_loss"]` is one of them over the epochs, `history.epochs` all records; pandas.DataFrame(history.epochs)
    makes a table of them.
    """

    def __init__(self, epochs: list[dict[str, Any]] | None = None) -> None:
        self.epochs: list[dict[str, Any]] = epochs or []

    @classmethod
    def from_json(cls, epochs: list[dict[str, Any]]) -> History:
        """What as_json gave."""
        return cls([{name: _from_json(value) for name, value in record.items()} for record in epochs])

    def as_json(self) -> list[dict[str, Any]]:
        """The epochs, with "NaN", "Infinity" and "-Infinity" as words, because JSON has no such numbers."""
        return [{name: _to_json(value) for name, value in record.items()} for record in self.epochs]

    def append(self, record: dict[str, Any]) -> None:
        """Add one epoch."""
        self.epochs.append(record)

    def __getitem__(self, name: str) -> list[Any]:
        """One quantity over the epochs that have it, e.g. history["val_accuracy"]."""
        values = [record[name] for record in self.epochs if name in record]
        if not values:
            known = sorted({key for record in self.epochs for key in record})
            raise KeyError(f"no {name!r} in the history; it holds {', '.join(known) or 'nothing yet'}")
        return values

    def __len__(self) -> int:
        return len(self.epochs)

    def __repr__(self) -> str:
        return f"History({len(self)} epochs: {', '.join(self.epochs[-1]) if self.epochs else 'empty'})"


_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _to_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    return _WORDS.get(value, value) if isinstance(value, str) else value
