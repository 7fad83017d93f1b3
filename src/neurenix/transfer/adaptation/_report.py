"""What became of an adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, final

from .selection import Evidence, SelectionGap


class Judged(Protocol):
    """An adaptation that has ended."""

    @property
    def chosen_epoch(self) -> int | None: ...
    @property
    def gap(self) -> SelectionGap | None: ...
    @property
    def began(self) -> Mapping[str, Any]: ...
    @property
    def scores(self) -> Mapping[str, Any]: ...
    @property
    def before(self) -> Evidence | None: ...
    @property
    def after(self) -> Evidence | None: ...


@final
@dataclass(frozen=True, kw_only=True)
class AdaptationReport:
    """chosen_epoch: 0-based, -1 for the model from before the adaptation, None where none was chosen.

    gap: what choosing without target labels cost; None where there are no such labels. scores, source_only: source_…
    metrics and criteria of the model that was kept and of the one from before, and target_… metrics where labels are
    known; empty without a source.
    """

    chosen_epoch: int | None
    gap: SelectionGap | None
    scores: Mapping[str, Any]
    source_only: Mapping[str, Any]

    @classmethod
    def of(cls, judged: Judged) -> AdaptationReport:
        """The report of an adaptation that has ended."""
        return cls(chosen_epoch=judged.chosen_epoch, gap=judged.gap, scores=judged.scores, source_only=judged.began)

    def __str__(self) -> str:
        if self.gap is not None:
            return str(self.gap)
        if self.chosen_epoch is None:
            return "adapted; the last epoch is kept"
        kept = "the model from before it" if self.chosen_epoch < 0 else f"epoch {self.chosen_epoch + 1}"
        return f"adapted; chosen without target labels: {kept}"
