"""Several methods on one pair of domains, and a choice among them without target labels."""

from __future__ import annotations

import inspect
import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from ...errors import ConfigurationError, NeurenixError, UnknownNameError
from ...metrics import TaskKind, higher_is_better
from ..arguments import check_types
from ._alarm_record import AlarmRecord
from ._choice import MethodChoice, chosen_method
from ._data import Given
from ._judge import BEFORE
from ._kept_figures import KeptFigures, about_comparison
from ._reference import reference_neighbours
from ._report import AdaptationReport
from .adapter import DomainAdapter, source_tuner
from .gap import told_by_neighbours
from .method import METHODS, AdaptationMethod, TermMethod
from .selection import CRITERIA, Evidence, LabelFreeChooser, guards_for
from .selection.choice import DEFAULT_CRITERIA
from .selection.expected_shares import believed_shares

SOURCE_ONLY = "source only"
Scores = Mapping[str, float]


@final
@dataclass(frozen=True, kw_only=True)
class AdaptedRow:
    """What a method reached, means over the seeds. source, target: the first metric; target, spread, best are None
    where the target's labels are not known.

    target: of the epoch that was chosen without labels. spread: its standard deviation over seeds. best: of the best
    epoch, which only labels can tell. told: how much of its answers on the target those for near samples tell, see
    compare_adaptations; None for other tasks than classes, and where an answer is not finite. alarm: the share of seeds
    in which the verdict was that adapting hurt, see judge_adaptation; None where there was none. seconds: of an
    adaptation. scores: the criteria.
    """

    name: str
    source: float
    target: float | None
    spread: float | None
    best: float | None
    told: float | None
    alarm: float | None
    seconds: float
    scores: Scores


@final
@dataclass(frozen=True, kw_only=True)
class AdaptationComparison:
    """The rows, the source's model first; print it. chosen: without target labels, see compare_adaptations.

    alarms: how often the alarm was right; None where the target's labels are not known, or nothing can raise it.
    left_out: name -> why it could not be tried.
    """

    metric: str
    rows: tuple[AdaptedRow, ...]
    chosen: AdaptedRow
    alarms: AlarmRecord | None
    left_out: Mapping[str, str]

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = [f"  {'method':{width}}  source  {'target ' + self.metric:>20}  best epoch    told  alarm  seconds"]
        for row in self.rows:
            mark = "*" if row is self.chosen else " "
            target = "-" if row.target is None else f"{row.target:.4f} ± {row.spread or 0.0:.4f}"
            best, told = ("-" if value is None else f"{value:.4f}" for value in (row.best, row.told))
            alarm = "-" if row.alarm is None else f"{row.alarm:.0%}"
            figures = f"{row.source:.4f}  {target:>20}  {best:>10}  {told:>6}  {alarm:>5}  {row.seconds:7.1f}"
            lines.append(f"{mark} {row.name:{width}}  {figures}")
        lines.append("* chosen without target labels")
        if self.alarms is not None:
            lines.append(str(self.alarms))
        return "\n".join([*lines, *(f"left out: {name}, because {reason}" for name, reason in self.left_out.items())])


def compare_adaptations(
    model: nn.Module,
    source: Any,
    target: Any,
    methods: Sequence[str] | Mapping[str, MethodChoice] | None = None,
    val_dataset: Any = None,
    *,
    epochs: int = 10,
    source_epochs: int | None = None,
    batch_size: int = 32,
    num_workers: int = 0,
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Any] | None = None,
    run: str | Path | None = None,
) -> AdaptationComparison:
    """Adapt copies of one source-trained model by several methods, and choose among them and it without target labels.

    methods: names, or label -> a method with its settings; None takes all that one fit can do (all but gradual ones).
    settings: other arguments of DomainAdapter, num_classes say. source, target, val_dataset: see DomainAdapter.fit.
    run: a folder where the figures of each finished adaptation are kept, so that the same call goes on where it was
        ended; other weights, data or settings are never mistaken for these. Data must be the same each time it is read.
    What frozen layers give is kept in the cache folder, so that it is computed once for all methods.

    Chosen is, among those that kept the source's classes (and its task, where all can be asked about it), the row whose
    answers on the target are told best by those for near samples, near in the features of the model that was given:
    what a method trains for, low entropy say, cannot judge it against methods that do not, and these features no method
    has trained. What is told counts as a part of the entropy of the answers or of the shares that the classes are
    believed to have in the target, whichever is more. Where there are no classes, the row with the best ranks in the
    criteria.

    A method that the model or data have no place for is left out, and why is told. Raises UnknownNameError for a method
    or a setting of no such name; ConfigurationError where none could be tried.
    """
    check_types({"seeds": seeds, "epochs": epochs}, {"seeds": Sequence[int], "epochs": int})
    chosen, settings = _chosen(methods), dict(settings or {})
    _check_names(settings)
    if not seeds:
        raise ConfigurationError("seeds is empty; give at least one.")
    before = max(1, epochs // 2) if source_epochs is None else source_epochs
    schedule = {"epochs": epochs, "source_epochs": before, "batch_size": batch_size}
    trial = _Trial(source, target, val_dataset, epochs, batch_size, num_workers)
    left_out: dict[str, str] = {}
    nearest: Tensor | None = None
    own = {name: value for name, value in settings.items() if name in ("norms", "chooses")}
    tail = {name: value for name, value in settings.items() if name not in own}
    for place, seed in enumerate(seeds):
        start = source_tuner(model, {**tail, "seed": seed})
        given = Given.of(source, target, val_dataset, batch_size=batch_size, num_workers=num_workers, tuner=start)
        if place == 0:  # the same for every seed
            nearest = reference_neighbours(start, given)
        about = {} if run is None else about_comparison(start.model, given, {**schedule, **settings})
        kept = KeptFigures(run, about)
        missing = [name for name in chosen if name not in left_out and not trial.recall(name, seed, kept, chosen[name])]
        if before and missing:
            start.fit(given.source_loader(), epochs=before, run=False)
        for name in missing:
            try:
                norms = own if isinstance(chosen[name], TermMethod) else {**own, "norms": "separate"}
                adapter = DomainAdapter(start, method=chosen[name], **norms)
                adapter._nearest = nearest
                trial.run(name, seed, adapter, nearest)
                trial.keep(name, seed, kept, chosen[name])
            except Exception as error:  # one method's, or one of the packages' that it is computed by
                told = isinstance(error, NeurenixError)
                left_out[name] = str(error) if told else f"{type(error).__name__}: {error}"
                trial.forget(name)
    return trial.compared(start.task, left_out, nearest)


@final
class _Trial:
    """The runs of all methods and seeds."""

    def __init__(
        self, source: Any, target: Any, validation: Any, epochs: int, batch_size: int, num_workers: int
    ) -> None:
        self._data = (source, target, validation, batch_size, epochs, 0)
        self._workers = num_workers
        self._runs: dict[str, dict[int, dict[str, Any]]] = {}
        self._began: dict[tuple[str, int], Scores] = {}  # of the source's model as each adaptation found it

    def recall(self, name: str, seed: int, kept: KeptFigures, method: AdaptationMethod) -> bool:
        """Take the figures of one that an earlier call finished; whether there are any."""
        found = kept.find(method, seed)
        if found is not None:
            self._known(seed, found["before"])
            self._began[name, seed] = found["before"]["scores"]
            self._runs.setdefault(name, {})[seed] = found["after"]
        return found is not None

    def keep(self, name: str, seed: int, kept: KeptFigures, method: AdaptationMethod) -> None:
        """Leave the figures of one that is finished to later calls."""
        known = self._runs[SOURCE_ONLY][seed]
        before = {**known, "scores": {**known["scores"], **self._began[name, seed]}}
        kept.keep(method, seed, {"before": before, "after": self._runs[name][seed]})

    def run(self, name: str, seed: int, adapter: DomainAdapter, nearest: Tensor | None) -> None:
        """One method, one seed. nearest: see reference_neighbours."""
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="neurenix-adaptations-") as folder:
            adapter.fit(*self._data, num_workers=self._workers, run=Path(folder) / "run")
        report, seconds = adapter.report, time.perf_counter() - begun
        assert report is not None
        best = None if report.gap is None else report.gap.oracle
        # the source's answers are those of the first report: another pass may have other last digits
        known = {"scores": report.source_only, "seconds": 0.0, "best": None, "alarm": None, **_answers(report.before)}
        known = self._known(seed, {**known, "entropy": _believed_entropy(report.before, nearest)})
        self._began[name, seed] = report.source_only
        found = {"scores": report.scores, "seconds": seconds, "best": best, **_answers(report.after)}
        if report.chosen_epoch == BEFORE:
            found |= {key: known[key] for key in ("answers", "classes")}
        found |= {"entropy": known["entropy"], "alarm": _alarm(report)}
        self._runs.setdefault(name, {})[seed] = found

    def _known(self, seed: int, figures: dict[str, Any]) -> dict[str, Any]:
        """Those of the source's model: the first that came, with the scores of all, as not every method takes all."""
        known = self._runs.setdefault(SOURCE_ONLY, {}).setdefault(seed, figures)
        known["scores"] = {**figures["scores"], **known["scores"]}
        return known

    def forget(self, name: str) -> None:
        """A method that cannot be tried."""
        for seed in self._runs.pop(name, {}):
            del self._began[name, seed]

    def compared(self, task: TaskKind, left_out: Mapping[str, str], nearest: Tensor | None) -> AdaptationComparison:
        """All rows and the choice. nearest: see reference_neighbours."""
        if len(self._runs) < 2:
            raise ConfigurationError(
                f"none of {', '.join(left_out)} could be tried; {next(iter(left_out.values()), 'give some methods')}"
            )
        first = next(iter(self._runs[SOURCE_ONLY].values()))["scores"]
        metric = next(name for name in first if name.startswith("source_") and name not in CRITERIA)
        metric = metric.removeprefix("source_")
        rows = tuple(_row(name, list(runs.values()), metric, nearest) for name, runs in self._runs.items())
        # models that normalise by the target's statistics were not asked about the source
        guards = [guard for guard in guards_for(task) if all(guard.criterion in row.scores for row in rows)]
        chooser = LabelFreeChooser[AdaptedRow](DEFAULT_CRITERIA[task], guards, len(rows))
        for row in rows:
            chooser.add(row.scores, lambda row=row: row)  # type: ignore[misc]
        chosen = chooser.chosen()[1]
        if any(row.told is not None for row in rows):
            merits = {
                place: (len(chooser.passed(place)), -math.inf if row.told is None else row.told)
                for place, row in enumerate(rows)
            }
            chosen = rows[max(merits, key=merits.__getitem__)]
        return AdaptationComparison(
            metric=metric, rows=rows, chosen=chosen, alarms=self._alarms(metric), left_out=left_out
        )

    def _alarms(self, metric: str) -> AlarmRecord | None:
        rising, target = higher_is_better(metric), f"target_{metric}"
        if rising is None:
            return None
        told = []
        for (name, seed), began in self._began.items():
            run = self._runs[name][seed]
            if run["alarm"] is not None and target in run["scores"]:
                gain = float(run["scores"][target]) - float(began[target])
                told.append((run["alarm"], gain if rising else -gain))
        return AlarmRecord.of(told) if told else None


def _answers(evidence: Evidence | None) -> dict[str, Any]:
    """The classes that a model finds in the target, and how many there are; none for other tasks."""
    if evidence is None or evidence.task != "multi_class" or not evidence.is_finite:
        return {"answers": [], "classes": 0}
    return {"answers": evidence.target_outputs.argmax(1).tolist(), "classes": evidence.target_outputs.shape[1]}


def _alarm(report: AdaptationReport) -> bool | None:
    """Whether it was raised; None where nothing can tell. Who ends with the model from before has hurt nothing."""
    return None if report.verdict is None else report.verdict.hurts and report.chosen_epoch != BEFORE


def _believed_entropy(before: Evidence | None, nearest: Tensor | None) -> float:
    """Of the classes' shares in the target, in nats, as far as the source's model can tell."""
    if before is None or nearest is None or before.task != "multi_class" or len(nearest) != len(before.target_outputs):
        return 0.0
    return float(torch.special.entr(believed_shares(before, nearest)).sum())


def _row(name: str, runs: Sequence[Mapping[str, Any]], metric: str, nearest: Tensor | None) -> AdaptedRow:
    def mean(key: str) -> float:
        return statistics.mean(float(run["scores"][key]) for run in runs)

    target = f"target_{metric}"
    told = target in runs[0]["scores"]
    values = [float(run["scores"][target]) for run in runs] if told else []
    bests = [run["best"] for run in runs if run["best"] is not None]
    return AdaptedRow(
        name=name,
        source=mean(f"source_{metric}"),
        target=statistics.mean(values) if told else None,
        spread=statistics.stdev(values) if len(values) > 1 else None,
        best=statistics.mean(bests) if bests else None,
        told=_told(runs, nearest),
        alarm=_share([run["alarm"] for run in runs]),
        seconds=statistics.median(run["seconds"] for run in runs),
        scores={key: mean(key) for key in runs[0]["scores"] if key in CRITERIA and _in_all(key, runs)},
    )


def _told(runs: Sequence[Mapping[str, Any]], nearest: Tensor | None) -> float | None:
    """The mean over seeds; None where one has no classes, or samples were lost while they were read."""
    if nearest is None or not all(run["classes"] and len(run["answers"]) == len(nearest) for run in runs):
        return None
    return statistics.mean(
        told_by_neighbours(torch.tensor(run["answers"]), nearest, run["classes"], run["entropy"]) for run in runs
    )


def _share(alarms: Sequence[bool | None]) -> float | None:
    return None if None in alarms else statistics.mean(bool(alarm) for alarm in alarms)


def _in_all(key: str, runs: Sequence[Mapping[str, Any]]) -> bool:
    return all(key in run["scores"] for run in runs)


def _check_names(settings: Mapping[str, Any]) -> None:
    possible = [name for name in inspect.signature(DomainAdapter).parameters if name not in ("model", "method", "seed")]
    for name in settings:
        if name not in possible:
            hint = "It takes seeds=… itself." if name == "seed" else ""
            raise UnknownNameError("setting of a comparison", name, possible, hint=hint)


def _chosen(methods: Sequence[str] | Mapping[str, MethodChoice] | None) -> dict[str, AdaptationMethod]:
    if methods is None:
        methods = [name for name, method in METHODS.items() if method.family != "gradual"]
    named = methods if isinstance(methods, Mapping) else {str(name): name for name in methods}
    if not named:
        raise ConfigurationError(f"there is nothing to compare: give at least one of {', '.join(METHODS)}.")
    return {label: chosen_method(method) for label, method in named.items()}
