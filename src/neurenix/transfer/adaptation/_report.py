"""What became of an adaptation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ._fit import TermFit
from .selection import SelectionGap


@final
@dataclass(frozen=True, kw_only=True)
class AdaptationReport:
    """chosen_epoch: 0-based, -1 for the model from before the adaptation, None where none was chosen.

    gap: what choosing without target labels cost; None where there are no such labels.
    """

    chosen_epoch: int | None
    gap: SelectionGap | None

    @classmethod
    def of(cls, fit: TermFit) -> AdaptationReport:
        """The report of a fit that has ended."""
        return cls(chosen_epoch=fit.chosen_epoch, gap=fit.gap)

    def __str__(self) -> str:
        if self.gap is not None:
            return str(self.gap)
        if self.chosen_epoch is None:
            return "adapted; the last epoch is kept"
        kept = "the model from before it" if self.chosen_epoch < 0 else f"epoch {self.chosen_epoch + 1}"
        return f"adapted; chosen without target labels: {kept}"
