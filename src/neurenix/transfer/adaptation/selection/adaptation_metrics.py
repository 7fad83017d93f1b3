"""What is measured of a model between two domains: its task on the source, the criteria, the target where known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import torch
from torch import Tensor

from ....errors import EmptyDatasetError, LabelMismatchError
from ....metrics import TaskKind, build_metrics
from .criterion import CRITERIA, MOST_SAMPLES, Evidence, criteria_for
from .expected_shares import expected_shares
from .row_sample import RowSample

SOURCE: Final = 0
TARGET: Final = 1
TRAINED: Final = 2
REPORTED: Final = 3


def judged_rows(target: Tensor) -> Tensor:
    """Those of all rows (n, w) of the target, in its order, that Evidence has: at most MOST_SAMPLES."""
    sample = RowSample(MOST_SAMPLES, seed=TARGET)
    sample.add(target)
    rows = sample.rows()
    return target if rows is None else rows


@final
class AdaptationMetrics:
    """Metrics of (outputs, targets) in which each row says which domain it is of; a neurenix.metrics.Metrics.

    outputs: (n, k + d), the head's k outputs and the d features that enter its last linear layer.
    targets: (n, 1 + c) float32, [domain, label or labels]; the domain is SOURCE (held out), TARGET, TRAINED, source
    samples of the training set, of which only the features are used, for density ratios, or REPORTED, labelled samples
    of the target that are for the report alone. A target's labels may be NaN.

    metrics: names as in build_metrics, reported as source_… and, where target_labels says that there are some, target_…
    of the target's labelled rows, or with `reported` of the REPORTED ones. criteria: names in CRITERIA; None takes all
    that the task has.
    Nothing of the target's labels reaches a criterion, and without target_labels they are not looked at.

    expected_shares: (k,), of the classes in the target, None before the first `compute`, which is of the model that the
    source alone has trained: they are estimated from it (BBSE), and kept for all that follow.
    """

    def __init__(
        self,
        metrics: Sequence[Any],
        task: TaskKind,
        num_outputs: int,
        *,
        criteria: Sequence[str] | None = None,
        target_labels: bool = False,
        reported: bool = False,
    ) -> None:
        names = criteria_for(task) if criteria is None else criteria
        self._criteria = {CRITERIA.canonical(name): CRITERIA[name]() for name in names}
        self._task, self._num_outputs = task, num_outputs
        self._labelled = {SOURCE: build_metrics(metrics, task, num_outputs)}
        self._shown = REPORTED if reported else TARGET if target_labels else None
        if self._shown is not None:
            self._labelled[self._shown] = build_metrics(metrics, task, num_outputs)
        self.expected_shares: Tensor | None = None
        self._samples = {domain: RowSample(MOST_SAMPLES, seed=domain) for domain in (SOURCE, TARGET, TRAINED)}

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of `compute`, in order."""
        source = [f"source_{name}" for name in self._labelled[SOURCE].names]
        target = [f"target_{name}" for name in self._labelled[self._shown].names] if self._shown is not None else []
        return (*source, *self._criteria, *target)

    def to(self, device: torch.device) -> AdaptationMetrics:
        """Count the task's metrics on `device`; what criteria look at is kept on the CPU."""
        for metrics in self._labelled.values():
            metrics.to(device)
        return self

    def name_outputs(self, names: Sequence[str]) -> None:
        """Tell the task's metrics the names of the outputs, in order."""
        for metrics in self._labelled.values():
            metrics.name_outputs(names)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add some samples; shapes in the docstring of the class."""
        self._check(outputs, targets)
        for domain, sample in self._samples.items():
            own = targets[:, 0] == domain
            answers, labels = outputs[own].float(), targets[own, 1:]
            sample.add(torch.cat([answers, labels if domain == SOURCE else labels[:, :0]], 1))
        for domain, metrics in self._labelled.items():
            own = (targets[:, 0] == domain) & ~targets[:, 1:].isnan().any(1)
            metrics.update(outputs[own, : self._num_outputs].float(), self._as_targets(targets[own, 1:]))

    def compute(self) -> dict[str, Any]:
        """Every metric and criterion over all samples since the last reset."""
        source = {f"source_{name}": value for name, value in self._labelled[SOURCE].compute().items()}
        if self._task == "multi_class" and self.expected_shares is None:
            self.expected_shares = expected_shares(self.evidence())
        evidence = self.evidence()
        judged = {name: criterion.score(evidence) for name, criterion in self._criteria.items()}
        target = {} if self._shown is None else self._labelled[self._shown].compute()
        return {**source, **judged, **{f"target_{name}": value for name, value in target.items()}}

    def evidence(self) -> Evidence:
        """What criteria judge by: at most MOST_SAMPLES of each domain, the same places after every reset."""
        source, target, trained = (sample.rows() for sample in self._samples.values())
        if source is None or target is None:
            raise EmptyDatasetError(
                f"Criteria compare held-out source samples with target samples; there are {self._samples[SOURCE].seen} "
                f"of the source and {self._samples[TARGET].seen} of the target."
            )
        outputs, columns = self._num_outputs, source.shape[1] - target.shape[1]
        return Evidence(
            task=self._task,
            source_features=source[:, outputs : source.shape[1] - columns],
            source_outputs=source[:, :outputs],
            source_targets=self._as_targets(source[:, source.shape[1] - columns :]),
            target_features=target[:, outputs:],
            target_outputs=target[:, :outputs],
            training_features=None if trained is None else trained[:, outputs:],
            expected_shares=self.expected_shares,
        )

    def reset(self) -> None:
        """Forget all samples."""
        for part in (*self._labelled.values(), *self._samples.values()):
            part.reset()

    def state(self) -> dict[str, Any]:
        """All that was seen since the last reset, as numbers and tensors."""
        return {
            "labelled": [metrics.state() for metrics in self._labelled.values()],
            "expected": self.expected_shares,
            "samples": [sample.state() for sample in self._samples.values()],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on counting where `state` was taken."""
        for metrics, found in zip(self._labelled.values(), state["labelled"], strict=True):
            metrics.load_state(found)
        self.expected_shares = state["expected"]
        for sample, rows in zip(self._samples.values(), state["samples"], strict=True):
            sample.load_state(rows)

    def _as_targets(self, labels: Tensor) -> Tensor:
        """(n, c) -> (n,) class numbers, or (n, c) labels or values."""
        return labels[:, 0].long() if self._task == "multi_class" else labels

    def _check(self, outputs: Tensor, targets: Tensor) -> None:
        if targets.ndim != 2 or targets.shape[1] < 2 or len(targets) != len(outputs):
            raise LabelMismatchError(
                f"targets are (n, 1 + c), a domain and labels for each of {len(outputs)} samples; they are "
                f"{tuple(targets.shape)}."
            )
        if outputs.ndim != 2 or outputs.shape[1] <= self._num_outputs:
            raise LabelMismatchError(
                f"outputs are (n, {self._num_outputs} + d), with the features behind the head's outputs; they are "
                f"{tuple(outputs.shape)}."
            )
