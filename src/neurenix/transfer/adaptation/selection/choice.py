"""The callback that ends a fit with the epoch that label-free criteria choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from ....callbacks import Callback
from ....errors import ConfigurationError
from ....metrics import TaskKind, higher_is_better
from .chooser import LabelFreeChooser
from .criterion import criteria_for
from .guards import guards_for

Logs = Mapping[str, float]
Snapshot = dict[str, Any]
DEFAULT_CRITERIA: dict[str, tuple[str, ...]] = {
    "multi_class": ("prior_im", "entropy", "snd"),
    "multi_label": ("im", "entropy", "dev"),
    "regression": ("dev", "source_risk"),
}


@final
@dataclass(frozen=True, kw_only=True)
class SelectionGap:
    """What choosing without target labels cost.

    Epochs are 0-based, and below 0 for the model from before the first. chosen, oracle: the metric's values there.
    """

    metric: str
    chosen_epoch: int
    oracle_epoch: int
    chosen: float
    oracle: float

    @property
    def gap(self) -> float:
        """How much better the best epoch would have been, at least 0."""
        return abs(self.oracle - self.chosen)

    def __str__(self) -> str:
        return (
            f"chosen without target labels: {_spoken(self.chosen_epoch)}, {self.metric} {self.chosen:.4f}; best with "
            f"them: {_spoken(self.oracle_epoch)}, {self.oracle:.4f}; selection gap {self.gap:.4f}"
        )


@final
class LabelFreeChoice(Callback):
    """Put back the epoch with the best average rank over the criteria; target labels are never read for it.

    criteria: names in CRITERIA that AdaptationMetrics reports as val_…; None takes DEFAULT_CRITERIA of the task.
    first_epoch: 0-based epoch that is the first candidate; -1 where on_epoch_end is called with -1 before the first
        epoch, for the model that was trained on the source alone.
    keeps_source: candidates that unlearned the source are passed over; not where they normalise by the target's
        statistics, to which the source is the stranger.
    gap: afterwards the SelectionGap where val_target_… metrics were logged, else None.
    """

    chosen_epoch: int | None
    gap: SelectionGap | None
    _epochs: list[int]
    _known: list[dict[str, Any]]

    def __init__(
        self,
        task: TaskKind,
        criteria: Sequence[str] | None = None,
        first_epoch: int = 0,
        *,
        keeps_source: bool = True,
    ) -> None:
        if task not in DEFAULT_CRITERIA:
            raise ConfigurationError(f"no criterion is defined for {task}; {', '.join(DEFAULT_CRITERIA)} have some.")
        self._task: TaskKind = task
        self._keeps_source = keeps_source
        self._criteria = tuple(DEFAULT_CRITERIA[task] if criteria is None else criteria)
        wrong = sorted({*self._chooser(None).criteria} - {*criteria_for(task)})
        if wrong:
            raise ConfigurationError(
                f"{', '.join(wrong)} cannot judge {task}; possible: {', '.join(criteria_for(task))}."
            )
        self.first_epoch = first_epoch
        self._start(None)

    @property
    def needed(self) -> tuple[str, ...]:
        """The criteria that have to be reported."""
        return self._choice.needed

    @property
    def scores(self) -> list[dict[str, float]]:
        """The criteria of every candidate so far."""
        return self._choice.scores

    def monitored(self) -> tuple[str, ...]:
        """Every criterion, as the validation reports it."""
        return tuple(f"val_{name}" for name in self.needed)

    def on_train_begin(self, logs: Logs) -> None:
        """Start anew."""
        self._start(self.run.epochs - self.first_epoch)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Judge the epoch."""
        if epoch < self.first_epoch:
            return
        self._epochs.append(epoch)
        self._known.append({name: value for name, value in logs.items() if name.startswith("val_target_")})
        self._choice.add({name: logs[f"val_{name}"] for name in self.needed}, self.run.snapshot)
        self._look()

    def on_train_end(self, logs: Logs) -> None:
        """Put the chosen epoch back."""
        if not self._epochs:
            return
        _, snapshot = self._choice.chosen()
        self.run.restore(snapshot)
        self._look()

    def state_dict(self) -> dict[str, Any]:
        """All scores and the snapshots that can still be chosen."""
        return {
            "epochs": list(self._epochs),
            "known": [dict(row) for row in self._known],
            "choice": self._choice.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on choosing where state_dict was taken."""
        self._epochs, self._known = list(state["epochs"]), [dict(row) for row in state["known"]]
        self._choice.load_state(state["choice"])
        if self._epochs:
            self._look()

    def _start(self, total: int | None) -> None:
        self._choice, self._epochs, self._known = self._chooser(total), [], []
        self.chosen_epoch, self.gap = None, None

    def _chooser(self, total: int | None) -> LabelFreeChooser[Snapshot]:
        return LabelFreeChooser(self._criteria, guards_for(self._task, self._keeps_source), total)

    def _look(self) -> None:
        place, _ = self._choice.chosen()
        self.chosen_epoch, self.gap = self._epochs[place], self._gap(place)

    def _gap(self, place: int) -> SelectionGap | None:
        for name in self._known[place]:
            metric = name.removeprefix("val_target_")
            rising = higher_is_better(metric)
            if rising is None:
                continue
            values = [row[name] for row in self._known]
            best = (max if rising else min)(range(len(values)), key=values.__getitem__)
            return SelectionGap(
                metric=f"target_{metric}",
                chosen_epoch=self._epochs[place],
                oracle_epoch=self._epochs[best],
                chosen=values[place],
                oracle=values[best],
            )
        return None


def _spoken(epoch: int) -> str:
    return f"epoch {epoch + 1}" if epoch >= 0 else "the model from before the first epoch"
