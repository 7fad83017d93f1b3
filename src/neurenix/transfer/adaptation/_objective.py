"""What a model is asked while it is adapted: the source's labels, and a method's term over both domains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from ...data import Batch
from ...data._batch import rows
from ...errors import ConfigurationError
from ...training import StepResult, Supervised
from ..heads._starts import last_linear
from ._paired import SOURCE
from .method import DomainStep, Inputs, Side, Term
from .norms import NormPolicy


@final
class Adaptation(nn.Module):
    """Objective over batches of PairedDomains: the supervised loss of the source plus a term.

    In evaluation the loss is the source's, and outputs are [head's outputs, features] side by side with the batch's
    rows [domain, label, …] as their targets.

    offset: place in the dataset at which the target's samples begin. reads: why the term needs the samples themselves.
    spread: samples of an evaluation for each one of the source, so that the mean over all is the source's mean loss.
    progress: share of the steps that are done; set before each.
    """

    needs_whole_batches = True

    def __init__(
        self,
        task: Supervised,
        term: Term,
        *,
        norms: NormPolicy,
        columns: int,
        offset: int,
        reads: str | None,
        uses_source: bool,
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        self.task, self.term, self.norms = task, term, norms
        self._columns, self._offset, self._reads, self._uses_source = columns, offset, reads, uses_source
        self._spread, self.progress = spread, 0.0
        self.outputs = task.num_outputs

    def reads_inputs(self, training: bool) -> str | None:
        """Where the method, or its way with batch norms, needs the samples themselves."""
        return (self._reads or self.norms.reads_inputs) if training else None

    def needs_modules(self, training: bool) -> bool:
        """Where batch norms are changed for each domain."""
        return training and self.norms.reads_inputs is not None

    def check(self, batch: Batch) -> None:
        """Labels of the source's samples must be ones that the head can answer."""
        source = self._of_source(batch)
        if bool(source.any()):
            labels = self._labels(batch, source)
            indices = batch.indices[source.to(batch.indices.device)]  # which stay on the processor
            self.task.check(Batch(labels, labels, indices))  # which looks at targets alone

    def forward(self, model: nn.Module, batch: Batch) -> StepResult:
        """Losses of a step, or what evaluation needs."""
        if not model.training:
            return self._evaluated(model, batch, self._of_source(batch))

        def question(inputs: Inputs, domain: str) -> tuple[Tensor, Tensor]:
            with self.norms.prepared(domain):
                return ask(model, inputs)

        source = batch.indices < self._offset  # places stay on the CPU, so that no step waits for a GPU's answer
        features, outputs = self.norms(lambda inputs: ask(model, inputs), batch.inputs, source)
        labels = self._labels(batch, source)
        step = DomainStep(
            source=self._side(batch, source, features, outputs, labels),
            target=self._side(batch, ~source, features, outputs, None),
            progress=self.progress,
            ask=_as_now(outputs.device.type, question),
            compare=self.task.compare,
        )
        with torch.autocast(outputs.device.type, enabled=False):  # distances of large vectors need all their digits
            parts = self.term(step)
        _check_moves(parts, features, outputs)
        if self._uses_source and len(step.source):
            parts = {"source": self._supervised(step.source), **parts}
        return StepResult(sum(parts.values(), start=outputs.sum() * 0.0), parts=parts)

    def _evaluated(self, model: nn.Module, batch: Batch, source: Tensor) -> StepResult:
        features, outputs = ask(model, batch.inputs)
        loss = outputs.sum() * 0.0
        if bool(source.any()):
            loss = self.task.compare(outputs[source], self._labels(batch, source)) * (
                self._spread * source.float().mean()
            )
        return StepResult(loss, torch.cat([outputs, features], 1))

    def _supervised(self, side: Side) -> Tensor:
        assert side.targets is not None
        return self.task.compare(side.outputs, side.targets)

    def _side(self, batch: Batch, chosen: Tensor, features: Tensor, outputs: Tensor, labels: Tensor | None) -> Side:
        """chosen: (n,) of the batch's samples, on the CPU."""
        found = chosen.nonzero().flatten()
        there, places = found.to(outputs.device, non_blocking=True), batch.indices[found]
        return Side(
            inputs=rows(batch.inputs, there),
            features=features[there],
            outputs=outputs[there],
            targets=labels,
            places=places if labels is not None else places - self._offset,
        )

    def _of_source(self, batch: Batch) -> Tensor:
        assert isinstance(batch.targets, Tensor)
        return batch.targets[:, 0] == SOURCE

    def _labels(self, batch: Batch, chosen: Tensor) -> Tensor:
        assert isinstance(batch.targets, Tensor)
        labels = batch.targets[chosen.nonzero().flatten().to(batch.targets.device, non_blocking=True)][:, 1:]
        if self.task.loss.task == "multi_class":
            return labels.squeeze(1).long()
        return labels.squeeze(1) if self._columns == 1 else labels


def _as_now(
    device: str, question: Callable[[Inputs, str], tuple[Tensor, Tensor]]
) -> Callable[[Inputs, str], tuple[Tensor, Tensor]]:
    """The question asked in the precision that there is now, wherever it is asked."""
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def asked(inputs: Inputs, domain: str) -> tuple[Tensor, Tensor]:
        with torch.autocast(device, dtype=dtype, enabled=enabled):
            return question(inputs, domain)

    return asked


def ask(model: Any, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """(features (n, d), outputs (n, k)) in float32: what enters the head's last linear layer, and what it gives."""
    seen: list[Tensor] = []
    layer = last_linear(model.head) or model.head
    handle = layer.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    try:
        outputs = model(inputs)
    finally:
        handle.remove()
    return seen[-1].float(), outputs.float()


def _check_moves(parts: dict[str, Tensor], features: Tensor, outputs: Tensor) -> None:
    """Raise ConfigurationError for a term that would train nothing of the model."""
    if features.requires_grad or not parts:
        return
    total = torch.stack(list(parts.values())).sum()
    reached = total.requires_grad and outputs.requires_grad
    if reached:
        (gradient,) = torch.autograd.grad(total, outputs, retain_graph=True, allow_unused=True)
        reached = gradient is not None
    if not reached:
        raise ConfigurationError(
            "this method moves what enters the head's last layer, and here that is frozen, so nothing would be "
            "adapted. Give the head a hidden layer, head_hidden_sizes=(256,), or let layers of the body learn."
        )
