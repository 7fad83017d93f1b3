"""Several metrics of boxes, pixels or texts fed together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from ..errors import EmptyDatasetError, LabelMismatchError
from ._lookup import check_defined, find_metric
from ._states import load_states, states
from ._task import TaskKind

if TYPE_CHECKING:
    import torchmetrics


@final
class DenseMetricSet:
    """Named metrics over one stream of (outputs, targets) of a head that reads unpooled features.

    detection: see dense.py; targets {"boxes": (n, k, 4), "labels": (n, k)}, padded by labels of -1.
    transcription: outputs [(heard, said), …], two texts for each sample; targets are not looked at.
    segmentation: logits (n, classes, height, width), or (n, 1, height, width) of yes or no; targets (n, height, width).
    span_answering: first and last tokens (n, 2); targets the same, below 0 for answers that are not there.
    Metrics that are parts of one computation share it.
    """

    def __init__(self, names: Sequence[str], task: TaskKind, num_outputs: int) -> None:
        self._task = task
        self._entries = {name: find_metric(name) for name in names}
        self._metrics: dict[str, torchmetrics.Metric] = {}
        self._samples = 0
        for entry in self._entries.values():
            check_defined(entry, task)
            if self._shared(entry.part, entry.name) not in self._metrics:
                self._metrics[self._shared(entry.part, entry.name)] = entry.build(task, num_outputs)
        for metric in self._metrics.values():
            metric.sync_on_compute = False

    @staticmethod
    def _shared(part: str, name: str) -> str:
        return "parts" if part else name

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of `compute`, in order."""
        return tuple(self._entries)

    def to(self, device: torch.device) -> DenseMetricSet:
        """Count on the CPU always, where matching boxes and counting pixels take least."""
        return self

    def name_outputs(self, names: Sequence[str]) -> None:
        """None of these needs names."""

    def update(self, outputs: Any, targets: Any) -> None:
        """Add some samples; shapes in the docstring of the class."""
        self._samples += len(outputs)
        if not self._metrics:  # of texts and sequences nothing is counted
            return
        prepared = _PREPARED[self._task](outputs, targets)
        for metric in self._metrics.values():
            metric.update(*prepared)

    def compute(self) -> dict[str, Any]:
        """Every metric over all samples since the last reset."""
        if not self._entries:
            return {}
        if not self._samples:
            raise EmptyDatasetError("No samples to compute metrics of: every one was skipped, or the data is empty.")
        computed: dict[str, Any] = {key: metric.compute() for key, metric in self._metrics.items()}
        return {
            name: float(computed["parts"][entry.part] if entry.part else computed[entry.name])
            for name, entry in self._entries.items()
        }

    def reset(self) -> None:
        """Forget all samples."""
        self._samples = 0
        for metric in self._metrics.values():
            metric.reset()

    def state(self) -> dict[str, Any]:
        """All that was counted since the last reset, as numbers and tensors."""
        return {"samples": self._samples, "parts": states(self._metrics)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on counting where `state` was taken."""
        self.reset()
        self._samples = state["samples"]
        load_states(self._metrics, state["parts"])


def _boxes(outputs: Any, targets: Any) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    predicted = [{name: answer[name].detach().cpu() for name in ("boxes", "scores", "labels")} for answer in outputs]
    real = [labels >= 0 for labels in targets["labels"].cpu()]
    truth = [
        {"boxes": boxes[kept], "labels": labels[kept]}
        for boxes, labels, kept in zip(targets["boxes"].cpu(), targets["labels"].cpu(), real, strict=True)
    ]
    return predicted, truth


def _pixels(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    if outputs.ndim != 4 or (len(outputs), *outputs.shape[2:]) != tuple(targets.shape):
        raise LabelMismatchError(
            f"masks of shape {tuple(targets.shape)} do not fit answers of shape {tuple(outputs.shape)}; a mask is "
            "(height, width), one class number for each pixel of the network's input."
        )
    decided = outputs.argmax(1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0).long()
    return decided.cpu(), targets.long().cpu()


def _texts(outputs: Any, targets: Any) -> tuple[list[str], list[str]]:
    return [heard for heard, _ in outputs], [said for _, said in outputs]


def _spans(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    there = (targets >= 0).all(1)
    return outputs[there].cpu(), targets[there].long().cpu()


_PREPARED: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "detection": _boxes,
    "segmentation": _pixels,
    "transcription": _texts,
    "span_answering": _spans,
}
