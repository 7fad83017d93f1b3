"""What a model is asked for one batch. The loop runs any objective; this is the ordinary, supervised one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data import Batch
from ..errors import ConfigurationError, LabelMismatchError
from .losses import Loss, LossOptions
from .targets import check_targets


@dataclass(frozen=True)
class StepResult:
    """loss: () to be minimised. parts: named shares of it. outputs: (n, k), None where metrics make no sense.

    Outputs of heads that read unpooled features may be a list, one entry for a sample.
    """

    loss: Tensor
    outputs: Any = None
    parts: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """objective(model, batch) -> StepResult; `check` raises for a batch that it cannot use, before it is moved.

    One that is a module has parameters of its own, which the optimizer trains and checkpoints keep beside the model's.

    needs_whole_batches: its loss is no mean over samples, so that a batch cannot be computed in parts.
    """

    needs_whole_batches: bool

    def reads_inputs(self, training: bool) -> str | None:
        """For what it needs the batch's inputs beside calling the model with them, in words; None where it does not."""
        ...

    def needs_modules(self, training: bool) -> bool:
        """Whether it reads or changes modules beside calling the model, so that others with its parameters cannot stand
        for them.
        """
        ...

    def __call__(self, model: nn.Module, batch: Batch) -> StepResult:
        """Forward and loss for one batch."""
        ...

    def check(self, batch: Batch) -> None:
        """Raise a DataError for targets that do not fit."""
        ...


@final
class Supervised:
    """A loss between the model's outputs and the batch's targets, with mixup while the model is in training mode.

    mixup_alpha: parameter of the Beta distribution that the mixing share is drawn from; 0 for no mixup.
    """

    needs_whole_batches = False

    def __init__(
        self, loss: Loss, num_outputs: int, *, options: LossOptions | None = None, mixup_alpha: float = 0.0
    ) -> None:
        self.loss = loss
        self.num_outputs = num_outputs
        self.options = options or LossOptions()
        self.mixup_alpha = mixup_alpha
        self._check_options()

    def reads_inputs(self, training: bool) -> str | None:
        """Mixup does while training."""
        return "mixup mixes the inputs themselves" if training and self.mixup_alpha > 0 else None

    def needs_modules(self, training: bool) -> bool:
        """It does not."""
        return False

    def __call__(self, model: nn.Module, batch: Batch) -> StepResult:
        """Forward and loss; the loss is computed in float32 whatever the precision of the forward pass."""
        targets = self._targets(batch)
        if model.training and self.mixup_alpha > 0:
            return self._mixed(model, batch, targets)
        outputs = model(batch.inputs).float()
        shares = model.training and self.loss.task == "multi_class" and targets.ndim == 2
        return StepResult(self.compare(outputs, targets), None if shares else outputs)  # shares have no right answer

    def compare(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss alone, (). outputs: (n, k), float32."""
        return self.loss.compute(outputs, targets, self._options_on(outputs))

    def check(self, batch: Batch) -> None:
        """Targets must be there, and be ones that the head can answer."""
        check_targets(self.loss, self._targets(batch), batch.indices, self.num_outputs)

    def _targets(self, batch: Batch) -> Tensor:
        targets: Tensor = labelled(batch)
        if isinstance(targets, Mapping):
            raise LabelMismatchError(
                f"the targets are {', '.join(targets)}, which loss={self.loss.name!r} compares with nothing; a model "
                "that was loaded with its head for them learns them without loss=…."
            )
        return targets

    def _mixed(self, model: nn.Module, batch: Batch, targets: Tensor) -> StepResult:
        share = float(torch.distributions.Beta(self.mixup_alpha, self.mixup_alpha).sample())
        order = torch.randperm(len(batch), device=targets.device)
        if self.loss.task == "multi_class" and targets.ndim == 1:
            targets = functional.one_hot(targets.long(), self.num_outputs).float()
        outputs = model(mix(batch.inputs, order, share)).float()
        return StepResult(self.compare(outputs, mix(targets.float(), order, share)))

    def _options_on(self, outputs: Tensor) -> LossOptions:
        weights, unit = self.options.class_weights, self.options.target_sd
        return replace(
            self.options,
            class_weights=None if weights is None else weights.to(outputs.device),
            target_sd=None if unit is None else unit.to(outputs.device),
        )

    def _check_options(self) -> None:
        weights, smoothing = self.options.class_weights, self.options.label_smoothing
        if not 0 <= smoothing < 1:
            raise ConfigurationError(f"label_smoothing={smoothing}; it is a share, at least 0 and below 1.")
        if self.mixup_alpha < 0:
            raise ConfigurationError(f"mixup_alpha={self.mixup_alpha}; it is 0 (off) or positive, 0.2 say.")
        if (weights is not None or smoothing) and not self.loss.weighted:
            raise ConfigurationError(
                f"class_weights and label_smoothing are for classification losses, not for {self.loss.name!r}."
            )
        if weights is not None and weights.shape != (self.num_outputs,):
            raise ConfigurationError(f"class_weights has {weights.numel()} values for {self.num_outputs} classes.")


def labelled(batch: Batch) -> Any:
    """The batch's targets, a tensor or a mapping of tensors; raises LabelMismatchError when there are none."""
    if batch.targets is None:
        raise LabelMismatchError("these samples have no targets; training and evaluation need (input, target) pairs.")
    return batch.targets


def mix(values: Tensor | object, order: Tensor, share: float) -> Tensor:
    """Share · x + (1 - share) · x[order]. Zhang et al., mixup, ICLR 2018, section 2. values: (n, …) -> (n, …)."""
    if not isinstance(values, Tensor):
        raise ConfigurationError("mixup mixes tensors such as images; texts cannot be mixed. Set mixup_alpha=0.")
    return share * values + (1 - share) * values[order]
