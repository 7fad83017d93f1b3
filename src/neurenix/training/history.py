"""What happened, epoch by epoch."""

from __future__ import annotations

from typing import Any, final


@final
class History:
    """One record per epoch over all fits: epoch, phase, loss, metrics, val_…, learning rates, seconds."""

    def __init__(self, epochs: list[dict[str, Any]] | None = None) -> None:
        self.epochs: list[dict[str, Any]] = epochs or []

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
