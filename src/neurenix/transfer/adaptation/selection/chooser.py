"""A choice among candidates that come one after the other, by the average rank over several criteria."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, final

from ....errors import ConfigurationError, UnknownNameError
from .criterion import CRITERIA
from .guards import Guard

T = TypeVar("T")
_Values = tuple[float, ...]  # higher is better


@final
class LabelFreeChooser(Generic[T]):
    """Of all candidates that pass the most guards, the one with the best sum of ranks; of equal ones the first.

    A candidate's rank in a criterion is the number of candidates that are strictly better in it. Of a candidate that
    can never be chosen any more no snapshot is kept:

    Let a be at least as good as b in every criterion and every guard, and either strictly better in a criterion or
    earlier. Then b is never chosen, whatever candidates follow. Guards: a passes each that b passes, since all
    candidates have the same limit, so a passes as many. Ranks: whoever is strictly better than a in a criterion is
    strictly better than b, so a's sum is at most b's; it is smaller where a is strictly better itself, as a counts for
    b and not for a. Where the sums are equal, a is earlier.

    The same holds where a is not as good in some criteria, q of them, but its sum of ranks is so much smaller that the
    r candidates that may still come cannot make up for it: each can add at most q to the difference.

    criteria: names in CRITERIA that are ranked. guards: see guards.py; their criteria have to be scored too.
    total: how many candidates there will be at most; None where nobody knows.
    """

    def __init__(self, criteria: Sequence[str], guards: Sequence[Guard] = (), total: int | None = None) -> None:
        if not criteria or isinstance(criteria, str):
            raise ConfigurationError(f"criteria={criteria!r}; give a list of at least one of {', '.join(CRITERIA)}.")
        self.criteria = tuple(dict.fromkeys(CRITERIA.canonical(name) for name in criteria))
        self.guards, self.total = tuple(guards), total
        self.scores: list[dict[str, float]] = []
        self._kept: dict[int, T] = {}

    @property
    def needed(self) -> tuple[str, ...]:
        """The criteria that every candidate has to be scored in, the guards' included."""
        return tuple(dict.fromkeys([*self.criteria, *(guard.criterion for guard in self.guards)]))

    @property
    def kept(self) -> tuple[int, ...]:
        """Places of the candidates that can still be chosen and have a snapshot."""
        return tuple(self._kept)

    def add(self, candidate_scores: Mapping[str, float], snapshot: Callable[[], T]) -> bool:
        """Judge the next candidate; its snapshot is only taken where it can win, and whether it was is returned.

        candidate_scores: criterion -> value, as it is; NaN counts as the worst. Raises UnknownNameError where one of
        `needed` is missing.
        """
        missing = [name for name in self.needed if name not in candidate_scores]
        if missing:
            raise UnknownNameError("score", missing[0], candidate_scores, hint=f"Needed: {', '.join(self.needed)}.")
        place = len(self.scores)
        self.scores.append({name: float(candidate_scores[name]) for name in self.needed})
        hopeless = self._hopeless([*self._kept, place])
        for other in hopeless & self._kept.keys():
            del self._kept[other]
        if place in hopeless:
            return False
        self._kept[place] = snapshot()
        return True

    def chosen(self) -> tuple[int, T]:
        """(place, snapshot) of the best candidate so far. Raises ConfigurationError where there is none."""
        if not self.scores:
            raise ConfigurationError("there is no candidate to choose from: none was added.")
        place = min(self._kept, key=self._merit(self._ranks()))
        return place, self._kept[place]

    def passed(self, place: int) -> tuple[str, ...]:
        """Criteria of the guards that a candidate passes."""
        return tuple(guard.criterion for guard in self.guards if self._passes(guard, place))

    def state(self) -> dict[str, Any]:
        """All scores, and the snapshots that are kept: JSON values, and whatever the snapshots are."""
        return {
            "criteria": list(self.needed),
            "scores": [[row[name] for name in self.needed] for row in self.scores],
            "kept": [[place, snapshot] for place, snapshot in self._kept.items()],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where state() was taken. Raises ConfigurationError for one of other criteria."""
        if list(state["criteria"]) != list(self.needed):
            raise ConfigurationError(
                f"this choice is by {', '.join(self.needed)}, not by {', '.join(state['criteria'])}."
            )
        self.scores = [dict(zip(self.needed, row, strict=True)) for row in state["scores"]]
        self._kept = {int(place): snapshot for place, snapshot in state["kept"]}

    # --- merits ------------------------------------------------------------------------------------------------

    def _merit(self, ranks: Sequence[int]) -> Callable[[int], tuple[int, int, int]]:
        return lambda place: (-len(self.passed(place)), ranks[place], place)

    def _ranks(self) -> list[int]:
        """Of each candidate the sum over criteria of how many are strictly better."""
        rows = [self._oriented(place, self.criteria) for place in range(len(self.scores))]
        columns = list(zip(*rows, strict=True))
        return [
            sum(sum(other > own for other in column) for own, column in zip(row, columns, strict=True)) for row in rows
        ]

    def _hopeless(self, places: Sequence[int]) -> set[int]:
        """Those of the candidates that another one of them beats for ever."""
        ranks = self._ranks()
        return {b for b in places if any(a != b and self._beats_for_ever(a, b, ranks) for a in places)}

    def _beats_for_ever(self, a: int, b: int, ranks: Sequence[int]) -> bool:
        guards = [guard.criterion for guard in self.guards]
        if any(x < y for x, y in zip(self._oriented(a, guards), self._oriented(b, guards), strict=True)):
            return False
        pairs = list(zip(self._oriented(a, self.criteria), self._oriented(b, self.criteria), strict=True))
        worse = sum(x < y for x, y in pairs)
        if worse and self.total is None:
            return False
        coming = max(0, self.total - len(self.scores)) if self.total is not None else 0
        lead = ranks[b] - ranks[a] - coming * worse
        return lead > 0 or (lead == 0 and a < b)

    def _passes(self, guard: Guard, place: int) -> bool:
        values = [row[guard.criterion] for row in self.scores]
        finite = [value for value in values if math.isfinite(value)]
        own = values[place]
        if not math.isfinite(own):
            return False
        limit = guard.limit(finite)
        return own >= limit if CRITERIA[guard.criterion].higher_is_better else own <= limit

    def _oriented(self, place: int, names: Sequence[str]) -> _Values:
        """Scores turned so that more is better; NaN is less than everything."""
        row = self.scores[place]
        turned = (row[name] if CRITERIA[name].higher_is_better else -row[name] for name in names)
        return tuple(-math.inf if math.isnan(value) else value for value in turned)
