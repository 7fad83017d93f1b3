"""What happened on the way from the source to the target, window by window."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Step:
    """One window. name: "intermediate 2", "pool", "target". samples: in it. kept: of them, after trimming.

    position: of its mean, 0 at the source and 1 at the target. mixing: see shift.mixing; both are None where source and
    target cannot be told apart by a line. disagreement: see shift.cycle_disagreement. changed: share of the kept
    pseudo-labels that the trained model gives up; None where the window was not trained on.
    """

    name: str
    samples: int
    kept: int
    position: float | None
    mixing: float | None
    disagreement: float
    changed: float | None = None


@dataclass(frozen=True)
class GradualPath:
    """All steps of a gradual self-training; print it. stopped: why it ended before the target, or None."""

    steps: tuple[Step, ...]
    stopped: str | None = None

    def __len__(self) -> int:
        return len(self.steps)

    def __str__(self) -> str:
        lines = [f"{'window':16} samples   kept  position  mixing  disagreement  changed"]
        lines += [
            f"{step.name:16} {step.samples:7} {step.kept:6}  {_shown(step.position):>8}  {_shown(step.mixing):>6}  "
            f"{step.disagreement:12.2f}  {'not trained' if step.changed is None else f'{step.changed:7.2f}'}"
            for step in self.steps
        ]
        return "\n".join([*lines, *([self.stopped] if self.stopped else [])])


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
