"""How often the alarm was right, where the target's labels can tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, kw_only=True)
class AlarmRecord:
    """Of adaptations whose gain is known: how many hurt, how many did not, and for how many of each the alarm cried.

    hurt: those with a model that is worse on the target than the source's model of the same seed. found: those of them
    that it cried for. unhurt, false: the same of all others.
    """

    hurt: int
    found: int
    unhurt: int
    false: int

    @classmethod
    def of(cls, adaptations: Iterable[tuple[bool, float]]) -> AlarmRecord:
        """adaptations: (whether it cried, gain of the adaptation) of each."""
        hurt: list[bool] = []
        unhurt: list[bool] = []
        for cried, gain in adaptations:
            (hurt if gain < 0 else unhurt).append(cried)
        return cls(hurt=len(hurt), found=sum(hurt), unhurt=len(unhurt), false=sum(unhurt))

    def __str__(self) -> str:
        return (
            f"the alarm cried for {self.found} of {self.hurt} adaptations that hurt, and for {self.false} of "
            f"{self.unhurt} that did not"
        )
