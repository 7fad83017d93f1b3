"""An adaptation by a term of the loss: the objective, what learns, how epochs are judged, and the loop."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...callbacks._base import Callback
from ...data import Batch
from ...data._randomness import own_random_state
from ...devices import autocast, is_out_of_memory, resolve_precision
from ...models import covered
from ...training import FreezeSchedule, Loop, Phase, RunOptions, Supervised, build_optimizer, fit_in_run
from ...training.faults import alone_in_its_batch
from ...training.freezing import apply_phase, set_training_mode
from ...training.prefix.rehearsal import restored
from ..arguments import checked_callbacks
from ..heads._starts import last_linear
from ..job import describe_data, describe_fit
from ..loaders import first_batch
from ..tuner import Tuner
from ._data import DomainData
from ._judge import BEFORE, metrics_of
from ._objective import Adaptation
from ._paired import PairedDomains
from ._steering import Steering
from ._trains import frozen_beside
from .method import Sizes, Term, TermMethod, record_of
from .norms import NORMS
from .selection import Evidence, LabelFreeChoice, SelectionGap

_REHEARSED = 4  # samples of each domain


@final
class TermFit:
    """One fit of a term on a tuner's model. The tuner decides what is trained, at which rates, and is what is saved.

    Afterwards: before, after, what is known of the model as it began and as it ended, None where there is no source to
    judge it by; began, scores: metrics and criteria of both; chosen_epoch: 0-based, or BEFORE; gap: to the best epoch,
    where labels of the target are known.
    """

    def __init__(
        self,
        tuner: Tuner,
        method: TermMethod,
        data: DomainData,
        epochs: int,
        *,
        norms: str,
        chooses: bool,
    ) -> None:
        self.tuner, self.method, self.data, self.norms, self._epochs = tuner, method, data, norms, epochs
        self._plan = tuner._plan(cast(PairedDomains, data.training.dataset).sizes[0], epochs)
        self.objective = self._objective()
        self._judges = data.judged is not None
        # by the target's statistics the source is answered as a stranger
        self.keeps_source = norms not in ("target", "per_domain") or not self._trains_batch_norms()
        choice = LabelFreeChoice(tuner.task, first_epoch=BEFORE, keeps_source=self.keeps_source)
        self._metrics = metrics_of(tuner, data, choice)
        self._choice = choice if chooses and self._judges else None
        self.before: Evidence | None = None
        self.after: Evidence | None = None
        self.began: Mapping[str, Any] = {}
        self.scores: Mapping[str, Any] = {}

    @property
    def chosen_epoch(self) -> int | None:
        """The epoch that was kept; None where none was chosen, and the last one stays."""
        return None if self._choice is None else self._choice.chosen_epoch

    @property
    def gap(self) -> SelectionGap | None:
        """What choosing without labels cost."""
        return None if self._choice is None else self._choice.gap

    def rehearse(self) -> None:
        """Compute the losses of a first step and throw them away: what cannot be, or would move nothing, is raised.

        Of a few samples of each domain, in every phase of freezing. A lack of memory is left to the training, which
        has ways to do with less.
        """
        model, device = self.tuner.model, next(self.tuner.model.parameters()).device
        frozen_beside(model, self.method.trains)
        batch = self._few().to(device)
        if not len(batch):  # which training finds, and tells which samples they are
            return
        self.objective.check(batch)
        learn = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        modes = [(module, module.training) for module in model.modules()]
        precision = resolve_precision(self.tuner.settings.precision, device, model)
        try:
            for phase in dict.fromkeys(self._freezing().phases):
                apply_phase(model, phase)
                set_training_mode(model, phase, keep_statistics=self._keeps_statistics)
                with own_random_state(), restored(model), autocast(device, precision):
                    self.objective.to(device)(model, batch)
        except ValueError as error:
            if (told := alone_in_its_batch(error)) is not None:
                raise told from error
            raise
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        finally:
            for parameter, learns in learn:
                parameter.requires_grad_(learns)
            for module, trains in modes:
                module.training = trains

    def _few(self) -> Batch:
        """The first samples of each domain."""
        sizes = cast(PairedDomains, self.data.training.dataset).sizes
        ends = list(accumulate(sizes))
        places = [torch.arange(end - size, end)[:_REHEARSED] for end, size in zip(ends, sizes, strict=True)]
        return self.data.training.of(torch.cat(places), 0)

    def run(self, start: Mapping[str, Tensor], callbacks: Sequence[Callback] | Callback, options: RunOptions) -> None:
        """Adapt. start: the model's tensors as they are now, copied."""
        tuner, training, epochs, plan = self.tuner, self.data.training, self._epochs, self._plan
        if self.norms in ("source", "target", "per_domain") and not self._trains_batch_norms():
            print(f"neurenix: norms={self.norms!r} changes nothing here: no batch norm of the model is trained")
        optimizer = self._optimizer()
        judged = [f"val_{name}" for name in ("loss", *self._metrics.names)] if self._judges else []
        own = checked_callbacks(callbacks, ["loss", *judged, "seconds"])
        choosing = [] if self._choice is None else [self._choice]
        steering = Steering(self.objective, self.data.target, self._look_before)
        first = first_batch(training, tuner.model, self.objective)

        def job() -> dict[str, Any]:
            told = {"method": record_of(self.method), "norms": self.norms, "chooses": self._choice is not None}
            read = describe_data("training", training, first)
            return describe_fit(tuner.model, optimizer, {**tuner._stored_settings(), **told}, read, epochs)

        loop = Loop(
            tuner.model,
            self.objective,
            optimizer,
            freezing=self._freezing(),
            settings=tuner._loop_settings(plan.closed_form, keep=options.keeps),
            metrics=self._metrics,
            callbacks=[steering, *own, *choosing],
            save=tuner.save,
            history=tuner.history,
            base=tuner._base,
        )
        fit_in_run(loop, training, self.data.judged, epochs, job=job, options=options, prepare=lambda: None)
        if self.before is None:  # in the process that began this run
            with _holding(tuner.model, start):
                self.began, self.before = self._look(loop)
        self.scores, self.after = self._look(loop)

    def _look(self, loop: Loop) -> tuple[Mapping[str, Any], Evidence | None]:
        if self.data.judged is None:
            return {}, None
        return loop.evaluate(self.data.judged), self._metrics.evidence()

    def _look_before(self, loop: Loop) -> None:
        """Judge the model that the adaptation begins with: it is the first candidate."""
        self.began, self.before = self._look(loop)
        if self._choice is not None:
            self._choice.on_epoch_end(BEFORE, {f"val_{name}": value for name, value in self.began.items()})

    def _objective(self) -> Adaptation:
        tuner, data = self.tuner, self.data
        labelled = cast(PairedDomains, data.training.dataset).datasets[0] if self.method.uses_source else None
        term = new_term(tuner, self.method)
        return Adaptation(
            cast(Supervised, tuner._objective(labelled)),
            term,
            norms=NORMS[self.norms](tuner.model),
            columns=data.columns,
            offset=data.offset,
            reads=self.method.reads_inputs,
            uses_source=self.method.uses_source,
            spread=data.spread,
        )

    def _optimizer(self) -> torch.optim.Optimizer:
        """The tuner's kind, anew, over the model and what the method trains beside it, at the head's rate.

        The source's batch norms learn as those do that they are copies of.
        """
        settings, rates = self.tuner.settings, self.tuner._rates(self.tuner.settings.learning_rate)
        optimizer = build_optimizer(self.tuner.model, settings.optimizer, rates, settings.weight_decay)
        copies = self.objective.norms.originals()
        groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
        for copied, original in copies.items():
            if id(original) in groups:
                groups[id(original)]["params"].append(copied)
        own = [parameter for parameter in self.objective.parameters() if parameter not in copies]
        for decays in (True, False):  # as build_optimizer does: not of vectors
            chosen = [parameter for parameter in own if (parameter.ndim > 1) == decays]
            group = {"params": chosen, "name": "method", "lr": rates.head, "base_lr": rates.head}
            if chosen:
                optimizer.add_param_group({**group, "weight_decay": settings.weight_decay if decays else 0.0})
        return optimizer

    @property
    def _keeps_statistics(self) -> bool:
        return self.tuner._keeps_statistics(self._plan.closed_form)

    def _trains_batch_norms(self) -> bool:
        norms = [name for name, part in self.tuner.model.named_modules() if isinstance(part, _BatchNorm)]
        phases = self._freezing().phases
        trained = any(not covered(name, phase.frozen) for name in norms for phase in phases)
        return trained and not self._keeps_statistics

    def _freezing(self) -> FreezeSchedule:
        """What the tuner freezes, and what the method does beyond it."""
        schedule = self._plan.freezing
        more = frozen_beside(self.tuner.model, self.method.trains)
        phases = tuple(Phase(phase.name, (*phase.frozen, *more)) for phase in schedule.phases)
        return FreezeSchedule(phases, schedule.starts)


def new_term(tuner: Tuner, method: TermMethod) -> Term:
    """The method's term for a model as it is now, the same for the same seed."""
    model, layer = tuner.model, last_linear(tuner.model.head)
    width = model.feature_size if layer is None else layer.in_features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(tuner.settings.seed)
        term = method.term(Sizes(features=width, outputs=tuner.num_outputs))
        term.begin(model)
    return term


@contextlib.contextmanager
def _holding(model: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """The model has other tensors inside the block."""
    own = copy.deepcopy(model.state_dict())
    model.load_state_dict(dict(state))
    try:
        yield
    finally:
        model.load_state_dict(own)
