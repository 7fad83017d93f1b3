"""A model judged on both domains without training: for methods that do not go through the loop epoch by epoch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from ...callbacks._base import Run
from ...data import Batch, DataLoader
from ...devices import resolve_precision
from ...training import OrdinaryFeed, Processes, answers
from ..tuner import Tuner
from ._data import DomainData
from ._paired import PairedDomains
from ._steering import side_by_side
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

    data: with samples to judge by. keeps_source: see LabelFreeChoice.
    """

    def __init__(self, tuner: Tuner, data: DomainData, chooses: bool, *, keeps_source: bool) -> None:
        assert data.judged is not None
        self._tuner, self._judged, self._chooses = tuner, data.judged, chooses
        self.keeps_source = keeps_source
        self._choice = LabelFreeChoice(tuner.task, first_epoch=BEFORE, keeps_source=keeps_source)
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
        self._metrics.update(*seen(self._tuner, self._judged))
        self._scores[epoch] = self._metrics.compute()
        self._choice.on_epoch_end(epoch, {f"val_{name}": value for name, value in self._scores[epoch].items()})
        return self._metrics.evidence()


def seen(tuner: Tuner, loader: DataLoader) -> tuple[Tensor, Tensor]:
    """[outputs, features] (n, k + d) of a loader's samples, and their targets, in its order."""
    processes = Processes(next(tuner.model.parameters()).device)
    precision = resolve_precision(tuner.settings.precision, processes.device, tuner.model)
    feed = OrdinaryFeed(tuner.model, loader, processes)
    rows, _ = answers(tuner.model, feed, processes, precision, _with_targets)
    columns = cast(PairedDomains, loader.dataset).columns + 1
    return rows[:, :-columns], rows[:, -columns:]


def _with_targets(model: nn.Module, batch: Batch) -> Tensor:
    return torch.cat([side_by_side(model, batch), cast(Tensor, batch.targets)], 1)
