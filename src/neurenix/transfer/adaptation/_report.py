"""What became of an adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, final

from torch import Tensor

from ._judge import BEFORE
from .selection import Evidence, SelectionGap
from .verdict import Verdict, judge_adaptation


class Judged(Protocol):
    """An adaptation that has ended."""

    keeps_source: bool  # whether it is to be judged by the source too

    @property
    def chosen_epoch(self) -> int | None:
        """See AdaptationReport."""
        ...

    @property
    def gap(self) -> SelectionGap | None:
        """See AdaptationReport."""
        ...

    @property
    def began(self) -> Mapping[str, Any]:
        """Metrics and criteria of the model from before."""
        ...

    @property
    def scores(self) -> Mapping[str, Any]:
        """Metrics and criteria of the model that is kept."""
        ...

    @property
    def before(self) -> Evidence | None:
        """What is known of the model from before."""
        ...

    @property
    def after(self) -> Evidence | None:
        """What is known of the model that is kept."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class AdaptationReport:
    """chosen_epoch: 0-based, -1 for the model from before the adaptation, None where none was chosen.

    gap: what choosing without target labels cost; None where there are no such labels. verdict: whether adapting hurt;
    None where nothing can tell, without a source or without classes. scores, source_only: source_… metrics and criteria
    of the model that was kept and of the one from before, and target_… metrics where labels are known. before, after:
    what is known of both, for report.plot_domain_gap.
    """

    chosen_epoch: int | None
    gap: SelectionGap | None
    verdict: Verdict | None
    scores: Mapping[str, Any]
    source_only: Mapping[str, Any]
    before: Evidence | None = field(repr=False)
    after: Evidence | None = field(repr=False)

    @classmethod
    def of(cls, judged: Judged, nearest: Tensor | None = None) -> AdaptationReport:
        """The report of an adaptation that has ended. nearest: see judge_adaptation."""
        return cls(
            chosen_epoch=judged.chosen_epoch,
            gap=judged.gap,
            verdict=_verdict(judged, nearest),
            scores=judged.scores,
            source_only=judged.began,
            before=judged.before,
            after=judged.after,
        )

    def __str__(self) -> str:
        lines = [self._kept()]
        if self.gap is not None:
            lines.append(str(self.gap))
        if self.verdict is not None and self.chosen_epoch != BEFORE:
            lines.append(str(self.verdict))
        return "\n".join(lines)

    def _kept(self) -> str:
        if self.chosen_epoch is None:
            return "Adapted; the last epoch is kept."
        if self.chosen_epoch == BEFORE:
            return "No epoch of the adaptation was judged better than the model from before it, which is kept."
        return f"Adapted; epoch {self.chosen_epoch + 1} is kept."


def _verdict(judged: Judged, nearest: Tensor | None) -> Verdict | None:
    before, after = judged.before, judged.after
    if before is None or after is None or before.task != "multi_class" or not before.is_finite:
        return None
    if nearest is not None and len(nearest) != len(before.target_outputs):  # some could not be read
        nearest = None
    return judge_adaptation(before, after, keeps_source=judged.keeps_source, nearest=nearest)
