"""Walk with a tuner from the source through intermediate domains, or an unordered pool, to the target."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset

from ....data import Subset, as_dataset
from ....errors import ConfigurationError, EmptyDatasetError, NotGradualWarning
from ...features import FeatureExtractor
from ...tuner import Tuner
from .ordering import ORDERS
from .path import GradualPath, Step
from .pseudo_labels import LABELS, PseudoLabelled, as_tensor, confident_places, hard_labels
from .self_training import GradualSelfTraining
from .shift import cycle_disagreement, enough_samples, mixing, positions
from .windows import STEPS, equal_windows, next_window


def adapt(
    tuner: Tuner,
    method: GradualSelfTraining,
    source: Any,
    target: Any,
    intermediate: Sequence[Any] = (),
    pool: Any = None,
    batch_size: int = 32,
    num_workers: int = 0,
) -> GradualPath:
    """Take a tuner that was trained on the source to the target, through what lies between them. Labels are not read.

    tuner: trained on the labelled source; its own fit trains it on each window, with its own settings. source: the
    samples it was trained on. target: samples without labels, the last window. intermediate: domains in their order
    from source to target. pool: instead of them, one dataset, or a list of several, in no order. Data is what fit
    takes.

    Raises ConfigurationError for models that do not classify, or where nothing lies between source and target;
    EmptyDatasetError for domains with too few samples to be measured. The model is untouched then.
    """
    _check_task(tuner)
    domains = _domains(source, target, intermediate, pool)
    walk = _Walk(tuner, method, domains["target"], batch_size, num_workers)
    features = {name: walk.features(domain) for name, domain in domains.items()}
    along = [name for name in domains if name != "source"]
    found = positions(features["source"], features["target"], [features[name] for name in along])
    stretches = [
        _Stretch(name, domains[name], places, method.window, name == "pool")
        for name, places in zip(along, found.windows, strict=True)
    ]
    return walk.to_the_end(domains["source"], stretches, found.spread if found.tell else None)


@dataclass(frozen=True)
class _Stretch:
    """A part of the way. positions: (n,) of its samples. window: samples per step. searched: it is in no order, and the
    lengths of windows are chosen.
    """

    name: str
    samples: Any
    positions: Tensor
    window: int | None
    searched: bool


@dataclass(frozen=True)
class _Window:
    """One step's samples. positions: (n,). probabilities: (n, k), of the model before the step."""

    name: str
    samples: Any
    positions: Tensor
    probabilities: Tensor
    disagreement: float


@final
class _Walk:
    def __init__(
        self, tuner: Tuner, method: GradualSelfTraining, target: Any, batch_size: int, num_workers: int
    ) -> None:
        self.tuner, self.method, self.target = tuner, method, target
        self.batch_size, self.num_workers = batch_size, num_workers

    def to_the_end(self, source: Any, stretches: Sequence[_Stretch], spread: float | None) -> GradualPath:
        """Take all windows of all stretches, or those before the way breaks off.

        spread: of positions within domains; None where they mean nothing.
        """
        steps: list[Step] = []
        why = None if spread is None else self._why_no_pool(stretches[0], spread)
        if why is not None and self._breaks_off(why):
            return GradualPath((), why)
        self.current, self.labels = source, hard_labels(self.probabilities(source))
        position: float | None = 0.0
        for window in (window for stretch in stretches for window in self._windows(stretch)):
            step = self._seen(window, spread)
            why = self._why_not_gradual(step, position)
            if why is not None and self._breaks_off(why):
                return GradualPath((*steps, step), why)
            steps.append(replace(step, changed=self._trained(window)))
            position = step.position
        return GradualPath(tuple(steps))

    def probabilities(self, samples: Any) -> Tensor:
        """(n, k) of the model as it is."""
        return as_tensor(self.tuner.predict_proba(samples, self.batch_size, self.num_workers))

    def features(self, samples: Any) -> Tensor:
        """(n, d), what enters the head of the model as it is."""
        extractor = FeatureExtractor(self.tuner.model)
        return extractor.extract(samples, self.batch_size, self.num_workers, progress=False)[0]

    def _windows(self, stretch: _Stretch) -> Iterator[_Window]:
        """Each is looked at when the model has been trained on the one before; a pool is put in order anew then."""
        if not stretch.searched:
            for places in equal_windows(len(stretch.samples), stretch.window):
                here, there = self.features(self.current), self.features(Subset(stretch.samples, places))
                yield self._window(stretch, torch.tensor(places), None, here, there)
            return
        left = torch.arange(len(stretch.samples))
        size = stretch.window or max(1, round(len(left) / STEPS))
        while len(left):
            here, there = self.features(self.current), self.features(Subset(stretch.samples, left.numpy()))
            order = ORDERS[self.method.order](here, self.features(self.target), there).argsort(stable=True)
            left = left[order]
            window = self._window(stretch, left, size, here, there[order])
            yield window
            left = left[len(window.positions) :]

    def _window(self, stretch: _Stretch, left: Tensor, size: int | None, here: Tensor, there: Tensor) -> _Window:
        """All that is left of a stretch; where a size is given, as many as still agree with the last window.

        here, there: features of the last window's samples, and of what is left.
        """
        count = len(left)
        left = left if size is None else left[: 2 * size + size // 4]
        samples = Subset(stretch.samples, left.numpy())
        probabilities = self.probabilities(samples)
        labels = hard_labels(probabilities)

        def disagreement_of(length: int) -> float:
            classes = probabilities.shape[1]
            return cycle_disagreement(here, self.labels, there[:length], labels[:length], classes)

        if size is None:
            length, lost = count, disagreement_of(count)
        else:
            least = max(1, size // 4)
            length, lost = next_window(count, size, disagreement_of, self.method.agreeing, least)
        places = stretch.positions[left[:length]]
        return _Window(stretch.name, Subset(samples, range(length)), places, probabilities[:length], lost)

    def _seen(self, window: _Window, spread: float | None) -> Step:
        return Step(
            name=window.name,
            samples=len(window.positions),
            kept=len(confident_places(window.probabilities, self.method.trim)),
            position=None if spread is None else float(window.positions.mean()),
            mixing=None if spread is None else mixing(window.positions, spread),
            disagreement=window.disagreement,
        )

    def _trained(self, window: _Window) -> float:
        """Train on the window; gives the share of the labels that were trained on and are not kept by the model."""
        kept = confident_places(window.probabilities, self.method.trim)
        labels = LABELS[self.method.labels](window.probabilities[kept])
        learned = PseudoLabelled(window.samples, kept, labels, self.tuner.model.categories)
        self.tuner.fit(
            learned, batch_size=self.batch_size, epochs=self.method.epochs, num_workers=self.num_workers, run=False
        )
        self.current, self.labels = window.samples, hard_labels(self.probabilities(window.samples))
        before = hard_labels(window.probabilities)
        return float((before[kept] != self.labels[kept]).double().mean())

    def _breaks_off(self, why: str) -> bool:
        stops = self.method.at_break == "stop"
        warnings.warn(f"{why} {_STOPPED if stops else _WENT_ON}", NotGradualWarning, stacklevel=5)
        return stops

    def _why_no_pool(self, pool: _Stretch, spread: float) -> str | None:
        """A pool spread evenly over the way has a mixing of 1/3, one with most samples at both ends above 1/2."""
        mixed = mixing(pool.positions, spread) if pool.searched else 0.0
        if mixed <= self.method.largest_mixing:
            return None
        return (
            f"the pool is a mixture of samples like the source's and like the target's (mixing {mixed:.2f}, "
            f"largest_mixing={self.method.largest_mixing}), with too few between them."
        )

    def _why_not_gradual(self, step: Step, before: float | None) -> str | None:
        """before: position of the window before, or of the source."""
        where, method = f"the window {step.name!r} ({step.samples} samples)", self.method
        moved = 0.0 if step.position is None or before is None else step.position - before
        if step.mixing is not None and step.mixing > method.largest_mixing:
            return (
                f"{where} is a mixture of samples like the source's and like the target's (mixing {step.mixing:.2f}, "
                f"largest_mixing={method.largest_mixing}), not a domain between them: its samples move all the way at "
                "once."
            )
        if moved > method.largest_step:
            return (
                f"{where} is {moved:.0%} of the whole way from the window before (largest_step={method.largest_step}); "
                "something between them is missing."
            )
        if step.disagreement > method.largest_disagreement:
            return (
                f"{where} keeps too little of what is known of the window before (disagreement "
                f"{step.disagreement:.2f}, largest_disagreement={method.largest_disagreement})."
            )
        return None


_STOPPED = "Adaptation ends before it, with the model as it is then; at_break='go_on' would train on it."
_WENT_ON = "Adaptation goes on, and may lose more than it gains."


def _check_task(tuner: Tuner) -> None:
    if tuner.task not in GradualSelfTraining.tasks:
        raise ConfigurationError(
            f"gradual self-training is for {', '.join(GradualSelfTraining.tasks)} classification, and this model does "
            f"{tuner.task}."
        )


def check_way(intermediate: Sequence[Any], pool: Any) -> None:
    """Raise ConfigurationError where nothing lies between source and target, or in two ways."""
    if (pool is None) == (len(intermediate) == 0):
        raise ConfigurationError(
            "gradual self-training goes through domains between source and target: give intermediate=[…], in their "
            "order, or pool=…, in no order, and not both."
        )


def _domains(source: Any, target: Any, intermediate: Sequence[Any], pool: Any) -> dict[str, Any]:
    """Datasets by their names, in the order of the way."""
    check_way(intermediate, pool)
    domains = {"source": as_dataset(source)}
    domains |= {f"intermediate {number}": as_dataset(domain) for number, domain in enumerate(intermediate, 1)}
    if pool is not None:
        parts = [as_dataset(part) for part in pool] if _is_list_of_datasets(pool) else [as_dataset(pool)]
        domains["pool"] = parts[0] if len(parts) == 1 else ConcatDataset(parts)
    domains["target"] = as_dataset(target)
    for name, domain in domains.items():
        if not enough_samples(len(domain)):
            raise EmptyDatasetError(
                f"{name} has {len(domain)} samples, too few to tell where it is on the way; give many more than 4."
            )
    return domains


def _is_list_of_datasets(pool: Any) -> bool:
    return isinstance(pool, list) and all(isinstance(part, torch.utils.data.Dataset) for part in pool)
