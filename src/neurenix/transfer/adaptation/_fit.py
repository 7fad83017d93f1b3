"""An adaptation by a term of the loss: the data of both domains, the objective, what learns, and the loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast, final

import torch

from ...callbacks._base import Callback
from ...data import DataLoader
from ...training import FreezeSchedule, Loop, Phase, RunOptions, Supervised, build_optimizer, fit_in_run
from ..arguments import checked_callbacks
from ..heads._starts import last_linear
from ..job import describe_data, describe_fit
from ..loaders import Use, first_batch, loader_for
from ..tuner import Tuner
from ._objective import Adaptation
from ._paired import PairedDomains
from ._steering import Steering
from ._trains import frozen_beside
from .method import Sizes, TermMethod, record_of
from .norms import NORMS


@final
class TermFit:
    """One fit of a term on a tuner's model. The tuner decides what is trained, at which rates, and is what is saved."""

    def __init__(
        self, tuner: Tuner, method: TermMethod, *, norms: str, batch_size: int, num_workers: int, options: RunOptions
    ) -> None:
        self.tuner, self.method, self.norms = tuner, method, norms
        self.batch_size, self.num_workers, self.options = batch_size, num_workers, options

    def run(
        self, source: Any, target: Any, validation: Any, epochs: int, callbacks: Sequence[Callback] | Callback
    ) -> None:
        """Adapt for so many epochs. source: labelled samples, or None. validation: labelled ones of the target."""
        tuner = self.tuner
        loader = self._training(source, target)
        objective = self._objective(loader)
        plan = self._freezing(len(loader.dataset), epochs)
        optimizer = self._optimizer(objective)
        steering = Steering(objective, self._loader(target, "prediction"))
        own = checked_callbacks(callbacks, ["loss", "seconds"])
        first = first_batch(loader, tuner.model, objective)

        def job() -> dict[str, Any]:
            told = {"method": record_of(self.method), "norms": self.norms}
            data = describe_data("training", loader, first)
            return describe_fit(tuner.model, optimizer, {**tuner._stored_settings(), **told}, data, epochs)

        loop = Loop(
            tuner.model,
            objective,
            optimizer,
            freezing=plan,
            settings=tuner._loop_settings(keep=self.options.keeps),
            metrics=tuner._metrics,
            callbacks=[steering, *own],
            save=tuner.save,
            history=tuner.history,
            base=tuner._base,
        )
        fit_in_run(loop, loader, None, epochs, job=job, options=self.options, prepare=lambda: None)

    def _loader(self, data: Any, use: Use) -> DataLoader:
        tuner = self.tuner
        return loader_for(
            data,
            tuner.model,
            use,
            num_outputs=tuner.num_outputs,
            categories=tuner.model.categories,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            seed=tuner.settings.seed,
        )

    def _training(self, source: Any, target: Any) -> DataLoader:
        """Batches of both domains."""
        labelled = None if source is None else self._loader(source, "training").dataset
        both = PairedDomains(labelled, self._loader(target, "adaptation").dataset, columns=self._columns(), told=False)
        return DataLoader(
            both,
            self.batch_size,
            shuffle=True,
            num_workers=self.num_workers,
            seed=self.tuner.settings.seed,
            views=self.tuner.settings.augmented_views,
            groups=both.sizes,
        )

    def _columns(self) -> int:
        """Numbers that a label takes."""
        return 1 if self.tuner.task == "multi_class" else self.tuner.num_outputs

    def _objective(self, loader: DataLoader) -> Adaptation:
        tuner, both = self.tuner, cast(PairedDomains, loader.dataset)
        model = tuner.model
        layer = last_linear(model.head)
        sizes = Sizes(features=model.feature_size if layer is None else layer.in_features, outputs=tuner.num_outputs)
        task = cast(Supervised, tuner._objective(both.datasets[0] if self.method.uses_source else None))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(tuner.settings.seed)
            term = self.method.term(sizes)
            term.begin(model)
        return Adaptation(
            task,
            term,
            norms=NORMS[self.norms](model),
            columns=self._columns(),
            offset=both.sizes[0] if self.method.uses_source else 0,
            reads=self.method.reads_inputs,
            uses_source=self.method.uses_source,
        )

    def _optimizer(self, objective: Adaptation) -> torch.optim.Optimizer:
        """The tuner's kind, anew, over the model and what the method trains beside it, at the head's rate."""
        settings, rates = self.tuner.settings, self.tuner._rates(self.tuner.settings.learning_rate)
        optimizer = build_optimizer(self.tuner.model, settings.optimizer, rates, settings.weight_decay)
        own = list(objective.parameters())
        if own:
            group = {"params": own, "name": "method", "lr": rates.head, "base_lr": rates.head}
            optimizer.add_param_group({**group, "weight_decay": settings.weight_decay})
        return optimizer

    def _freezing(self, samples: int, epochs: int) -> FreezeSchedule:
        """What the tuner freezes, and what the method does beyond it."""
        schedule = self.tuner._plan(samples, epochs).freezing
        more = frozen_beside(self.tuner.model, self.method.trains)
        phases = tuple(Phase(phase.name, (*phase.frozen, *more)) for phase in schedule.phases)
        return FreezeSchedule(phases, schedule.starts)
