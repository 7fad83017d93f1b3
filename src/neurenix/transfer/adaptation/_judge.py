"""A model judged on both domains without training: for methods that do not go through the loop epoch by epoch."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from ...callbacks._base import Run
from ...data import Batch, DataLoader
from ...devices import is_exact, resolve_precision
from ...training import OrdinaryFeed, Processes, answers
from ...training.prefix import Feed, ReusingFeed
from ..tuner import Tuner
from ._data import DomainData
from ._paired import PairedDomains
from ._steering import side_by_side
from .method import WholeMethod
from .selection import AdaptationMetrics, Evidence, LabelFreeChoice, SelectionGap

BEFORE, AFTER = -1, 0  # the candidates, as epochs


def metrics_of(tuner: Tuner, data: DomainData, choice: LabelFreeChoice) -> AdaptationMetrics:
    """What epochs are judged by."""
    return AdaptationMetrics(
        tuner.settings.metrics or [],
        tuner.task,
        tuner.num_outputs,
        criteria=choice.needed,
        target_labels=data.told,
        reported=data.reports,
    )


@final
class _Model:
    """What a choice asks of a run, of a model that is in none."""

    def __init__(self, tuner: Tuner) -> None:
        self._model = tuner.model

    def snapshot(self) -> dict[str, Any]:
        return copy.deepcopy(self._model.state_dict())

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        self._model.load_state_dict(dict(snapshot))


@final
class BeforeAndAfter:
    """The model of a tuner as it begins and as it ends: which is better, and what is known of both.

    data: with samples to judge by. method: what changes the model in between. keeps: see _Seen.
    """

    def __init__(self, tuner: Tuner, data: DomainData, method: WholeMethod, chooses: bool, *, keeps: bool) -> None:
        assert data.judged is not None
        self._seen = _Seen(tuner, data.judged, leaves_trunk=method.leaves_trunk, keeps=keeps)
        self._chooses, self.keeps_source = chooses, not method.by_target
        self._choice = LabelFreeChoice(tuner.task, first_epoch=BEFORE, keeps_source=self.keeps_source)
        self._metrics = metrics_of(tuner, data, self._choice)
        self._choice.attach(cast(Run, _Model(tuner)))
        self._scores: dict[int, Mapping[str, Any]] = {}
        self.before = self._look(BEFORE)
        self.after: Evidence | None = None

    def end(self) -> None:
        """Judge the model as it is now; where the one from before is better, and a choice is wanted, put that back."""
        self.after = self._look(AFTER)
        if self._chooses:
            self._choice.on_train_end({})
        if self.chosen_epoch == BEFORE:
            self.after = self.before

    @property
    def chosen_epoch(self) -> int | None:
        """BEFORE or AFTER; None where nothing is chosen."""
        return self._choice.chosen_epoch if self._chooses else None

    @property
    def began(self) -> Mapping[str, Any]:
        """Metrics and criteria of the model from before."""
        return self._scores[BEFORE]

    @property
    def scores(self) -> Mapping[str, Any]:
        """Metrics and criteria of the model that is kept."""
        return self._scores[AFTER if self.chosen_epoch is None else self.chosen_epoch]

    @property
    def gap(self) -> SelectionGap | None:
        """What choosing without labels cost."""
        return self._choice.gap if self._chooses else None

    def _look(self, epoch: int) -> Evidence:
        self._metrics.reset()
        self._metrics.update(*self._seen())
        self._scores[epoch] = self._metrics.compute()
        self._choice.on_epoch_end(epoch, {f"val_{name}": value for name, value in self._scores[epoch].items()})
        return self._metrics.evidence()


@final
class _Seen:
    """What a tuner's model answers for a loader's samples, in its order, as often as it is asked.

    leaves_trunk: nothing below the head changes in between, so that it runs once for each sample. keeps: what it gives
    is left in the cache folder, for other methods from this model.
    """

    def __init__(self, tuner: Tuner, loader: DataLoader, *, leaves_trunk: bool, keeps: bool) -> None:
        settings, self._model = tuner.settings, tuner.model
        self._processes = Processes(next(self._model.parameters()).device)
        self._precision = resolve_precision(settings.precision, self._processes.device, self._model)
        self._columns = cast(PairedDomains, loader.dataset).columns + 1
        self._leaves_trunk = leaves_trunk
        self._feed: Feed = OrdinaryFeed(self._model, loader, self._processes)
        reuse = tuner._loop_settings(keep=keeps).reuse
        if leaves_trunk and reuse.use != "never":
            self._feed = ReusingFeed(
                self._model,
                loader,
                self._processes,
                options=replace(reuse, use="always", backend="eager"),
                precision=self._precision,
                exact=is_exact(settings.precision, self._processes.device),
                first=0,
                passes=2,
                training=False,
                moving=frozenset(),
                check=lambda batch: None,
                features=None,
                say=lambda message: None,
            )

    def __call__(self) -> tuple[Tensor, Tensor]:
        """[outputs, features] (n, k + d), and targets."""
        with _frozen(self._model.trunk) if self._leaves_trunk else contextlib.nullcontext():
            rows, _ = answers(self._model, self._feed, self._processes, self._precision, _with_targets)
        return rows[:, : -self._columns], rows[:, -self._columns :]


@contextlib.contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Nothing of it learns, inside the block."""
    learns = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, trains in learns:
            parameter.requires_grad_(trains)


def _with_targets(model: nn.Module, batch: Batch) -> Tensor:
    return torch.cat([side_by_side(model, batch), cast(Tensor, batch.targets)], 1)
