"""Several ways to tune one model, side by side: the same data, the same seeds, what each reaches and what it costs."""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import torch
from torch import nn

from ..callbacks import Callback
from ..errors import ConfigurationError, NeurenixError, UnknownNameError
from .arguments import check_types
from .finetune import Finetuner
from .strategies import STRATEGIES
from .tuner import Tuner
from .tuners import TUNERS

Options = Mapping[str, Any]
_MIB = 2.0**20
_LOOK = 0.02  # seconds between looks at the memory


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a way of tuning reached, over all seeds, and what it cost.

    score: mean of the metric over the seeds, spread: its standard deviation, None of one seed. trained: parameters,
    with the head's. seconds: of a fit. memory, file: MiB, the most that a fit needed and what it saved.
    is_best: no other one reaches as much with as few trained parameters.
    """

    name: str
    score: float
    spread: float | None
    trained: int
    seconds: float
    memory: float
    file: float
    is_best: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The candidates, best score first, and a table when printed. left_out: name -> why it could not be tried."""

    metric: str
    rows: tuple[Candidate, ...]
    left_out: Mapping[str, str]

    @property
    def best(self) -> tuple[Candidate, ...]:
        """Those that no other one beats in score with as few trained parameters, the fewest first."""
        return tuple(sorted((row for row in self.rows if row.is_best), key=lambda row: row.trained))

    def __str__(self) -> str:
        width = max([len(row.name) for row in self.rows] + [6])
        lines = [
            f"  {'method':{width}}  {self.metric:>15}  {'trained':>12}  {'seconds':>8}  {'memory MiB':>10}  file MiB"
        ]
        for row in self.rows:
            score = f"{row.score:.4f}" + ("" if row.spread is None else f" ± {row.spread:.4f}")
            costs = f"{row.trained:12,}  {row.seconds:8.1f}  {row.memory:10,.0f}  {row.file:8.2f}"
            lines.append(f"{'*' if row.is_best else ' '} {row.name:{width}}  {score:>15}  {costs}")
        lines.append("* no other one reaches as much with as few trained parameters")
        return "\n".join([*lines, *(f"left out: {name}, because {reason}" for name, reason in self.left_out.items())])


def compare(
    model: nn.Module,
    train_dataset: Any,
    val_dataset: Any,
    methods: Sequence[str] | Mapping[str, Options] | None = None,
    *,
    num_classes: int | None = None,
    epochs: int = 5,
    batch_size: int = 32,
    num_workers: int = 0,
    seeds: Sequence[int] = (0,),
    budget: float | None = None,
    metric: str = "accuracy",
) -> Comparison:
    """Tune copies of a model in several ways, in the same batches, and say what each is worth on validation data.

    methods: names of tuners (adapter, lora, prompt, …) and of Finetuner's strategies (full, head, lp_ft, …); or label
        -> arguments, with "method" for another name than the label: {"wide": {"method": "lora", "rank": 32}}. None
        takes all tuners, the head alone, and full fine-tuning.
    budget: seconds of training for each fit; one that has used them ends with the epoch.
    metric: any of neurenix.metrics.METRICS, of which more is better.

    A way for which the model has no place, or that ends with an error of neurenix, is left out, and why is told.
    Raises UnknownNameError for a method of no such name; ConfigurationError where none could be tried.
    """
    check_types(
        {"seeds": seeds, "epochs": epochs, "budget": budget},
        {"seeds": Sequence[int], "epochs": int, "budget": float | None},
    )
    chosen = _chosen(methods)
    if not chosen or not seeds:
        raise ConfigurationError("there is nothing to compare: give at least one method and one seed.")
    found, left_out = dict[str, list[Candidate]](), dict[str, str]()
    for seed in seeds:
        for name, options in chosen.items():
            if name in left_out:
                continue
            try:
                tuner = _tuner(model, name, {"num_classes": num_classes, "metrics": [metric], **options, "seed": seed})
                callbacks = [] if budget is None else [_Until(budget)]
                begun = time.perf_counter()
                with _Peak() as peak:
                    tuner.fit(train_dataset, None, batch_size, epochs, callbacks, num_workers, run=False)
                seconds = time.perf_counter() - begun
                score = float(tuner.evaluate(val_dataset, batch_size, num_workers)[metric])
                row = Candidate(
                    name=name,
                    score=score,
                    spread=None,
                    trained=tuner.summary().trainable,
                    seconds=seconds,
                    memory=peak.mebibytes,
                    file=_size(tuner),
                )
                found.setdefault(name, []).append(row)
            except NeurenixError as error:
                left_out[name] = str(error)
                found.pop(name, None)
    if not found:
        raise ConfigurationError(f"none of {', '.join(left_out)} could be tried; {next(iter(left_out.values()))}")
    return Comparison(metric=metric, rows=_ranked(found), left_out=left_out)


def _chosen(methods: Sequence[str] | Mapping[str, Options] | None) -> dict[str, Options]:
    if methods is None:
        methods = [*TUNERS, "head", "full"]
    names = [methods] if isinstance(methods, str) else methods
    chosen = dict(names) if isinstance(names, Mapping) else {name: {} for name in names}
    for label, options in chosen.items():
        if (name := options.get("method", label)) not in TUNERS and name not in STRATEGIES:
            raise UnknownNameError("method", name, [*TUNERS, *STRATEGIES])
    return chosen


def _tuner(model: nn.Module, label: str, options: Options) -> Tuner:
    method = options.get("method", label)
    arguments = {name: value for name, value in options.items() if name != "method"}
    if method in TUNERS:
        return TUNERS[method](model, **arguments)
    return Finetuner(model, strategy=method, **arguments)


def _ranked(found: Mapping[str, Sequence[Candidate]]) -> tuple[Candidate, ...]:
    rows = [
        {
            **vars(runs[0]),
            "score": statistics.mean(run.score for run in runs),
            "spread": statistics.stdev(run.score for run in runs) if len(runs) > 1 else None,
            "seconds": statistics.median(run.seconds for run in runs),
            "memory": max(run.memory for run in runs),
        }
        for runs in found.values()
    ]
    for row in rows:
        row["is_best"] = not any(
            other["score"] >= row["score"]
            and other["trained"] <= row["trained"]
            and (other["score"], -other["trained"]) != (row["score"], -row["trained"])
            for other in rows
        )
    return tuple(sorted((Candidate(**row) for row in rows), key=lambda row: (-row.score, row.trained)))


def _size(tuner: Tuner) -> float:
    """MiB of the tensors that a tuner saves."""
    with tempfile.TemporaryDirectory(prefix="neurenix-compare-") as folder:
        tuner.save(Path(folder) / "tuned")
        return sum(path.stat().st_size for path in Path(folder, "tuned").glob("weights-*.safetensors")) / _MIB


@final
class _Until(Callback):
    """Ends a fit after the epoch in which its time is used up."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def on_train_begin(self, logs: Any) -> None:
        self._begun = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        if time.monotonic() - self._begun >= self._seconds:
            self.run.stop(f"its {self._seconds:g} s are used up")


@final
class _Peak:
    """The most memory within a block: of the accelerator, else what this process needs beyond what it had before."""

    mebibytes = float("nan")

    def __enter__(self) -> Self:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            return self
        self._ended, self._most, self._before = threading.Event(), 0.0, _resident()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK):
            self._most = max(self._most, _resident())

    def __exit__(self, *_: object) -> None:
        if torch.cuda.is_available():
            self.mebibytes = torch.cuda.max_memory_allocated() / _MIB
            return
        self._ended.set()
        self._watcher.join()
        self.mebibytes = max(0.0, max(self._most, _resident()) - self._before)


def _resident() -> float:
    """MiB that this process holds in memory now; what it has held at most where the system does not tell."""
    listing = Path("/proc/self/statm")
    if listing.is_file():
        return int(listing.read_text().split()[1]) * resource.getpagesize() / _MIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB
