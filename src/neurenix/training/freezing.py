"""What is frozen is a pure function of a schedule and the epoch; frozen means byte-identical afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from ..errors import ConfigurationError, InvariantError
from ..models import PretrainedModel, covered, display_name, match_layers
from ..storage import tensor_digest


@dataclass(frozen=True)
class Phase:
    """A span of training with one set of frozen layers. frozen: qualified names; name: what is said to the user."""

    name: str
    frozen: tuple[str, ...]


@dataclass(frozen=True)
class FreezeSchedule:
    """Phases, and when each begins: at a given epoch, or when the validation loss has stopped falling.

    starts: first epoch of every phase, for schedules by epoch; None for schedules by plateau.
    """

    phases: tuple[Phase, ...]
    starts: tuple[int, ...] | None = (0,)

    def phase(self, epoch: int, plateaus: int = 0) -> Phase:
        """The phase of an epoch. plateaus: how often the validation loss has stalled, for schedules by plateau."""
        if self.starts is None:
            return self.phases[min(plateaus, len(self.phases) - 1)]
        return self.phases[sum(start <= epoch for start in self.starts) - 1]

    def end(self, epoch: int, epochs: int) -> int:
        """The first epoch after the phase of `epoch`, at most, in a fit of so many epochs."""
        return min([start for start in self.starts or () if start > epoch], default=epochs)


def expanded(model: nn.Module, patterns: Sequence[str] | str) -> tuple[str, ...]:
    """Qualified names of the layers that patterns name and of everything below them, so that parts can be released."""
    return _below(model, match_layers(model, patterns) if patterns else [])


def frozen_now(model: nn.Module) -> tuple[str, ...]:
    """Qualified names of everything that takes no gradients now, as `expanded` gives them."""
    still = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    for name, module in model.named_modules():
        parameters = list(module.parameters())
        if name and parameters and not any(parameter.requires_grad for parameter in parameters):
            still.append(name)
    return _below(model, still)


def released(frozen: Sequence[str], layers: Sequence[str]) -> tuple[str, ...]:
    """`frozen` without `layers`, and without what these lie in. Both as `expanded` gives them."""
    gone = {*layers, *(holder for name in layers for holder in above(name))}
    return tuple(name for name in frozen if name not in gone)


def _below(model: nn.Module, layers: Sequence[str]) -> tuple[str, ...]:
    names = [*(name for name, _ in model.named_modules()), *(name for name, _ in model.named_parameters())]
    return tuple(dict.fromkeys(name for name in names if covered(name, layers)))


def above(name: str) -> list[str]:
    """The names of everything that a qualified name lies in: a.b.c -> a.b, a."""
    return [name.rsplit(".", cut)[0] for cut in range(1, name.count(".") + 1)]


def topmost(model: PretrainedModel, names: Sequence[str]) -> list[str]:
    """Layers as users name them, without those that lie below another one of them."""
    given = set(names)
    return [display_name(model, name) for name in names if not any(parent in given for parent in above(name))]


def constant_schedule(frozen: Sequence[str]) -> FreezeSchedule:
    """One phase for all epochs."""
    return FreezeSchedule((Phase("fixed" if frozen else "all layers", tuple(frozen)),))


def progressive_schedule(stages: Sequence[str], names: Sequence[str], epochs: int, by_plateau: bool) -> FreezeSchedule:
    """Head alone first, then one stage more at a time from the top, in equal spans of epochs or at plateaus.

    Howard & Ruder, ULMFiT, ACL 2018, section 3.3. stages: qualified names, from input to output; names: as displayed.
    With fewer epochs than phases, several stages are unfrozen at once.
    """
    phases = [Phase("head", tuple(stages))]
    for kept in range(len(stages) - 1, -1, -1):
        phases.append(Phase(f"{names[kept]} and above" if kept else "all layers", tuple(stages[:kept])))
    if by_plateau:
        return FreezeSchedule(tuple(phases), None)
    spans = min(len(phases), max(1, epochs))
    picked = [phases[round(i * (len(phases) - 1) / max(1, spans - 1))] for i in range(spans)]
    return FreezeSchedule(tuple(picked), tuple(i * epochs // spans for i in range(spans)))


def apply_phase(model: nn.Module, phase: Phase) -> None:
    """Set requires_grad of every parameter to what the phase says."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not covered(name, phase.frozen))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigurationError("every layer is frozen, the head too: there is nothing to train. Unfreeze a layer.")


def set_training_mode(model: nn.Module, phase: Phase, *, keep_statistics: bool = False) -> None:
    """Training mode for what is trained; inference mode (fixed norm statistics, no dropout) for what is frozen.

    keep_statistics: batch norms that are trained normalise with their pretrained statistics too, and keep them.
    """
    model.train()
    for name, module in model.named_modules():
        parameters = list(module.parameters())
        frozen = covered(name, phase.frozen) or (parameters and not any(p.requires_grad for p in parameters))
        if frozen or (keep_statistics and isinstance(module, nn.modules.batchnorm._BatchNorm)):
            module.eval()


@final
class StateWatch:
    """Holds the invariant of a phase: trainable ⇔ in the optimizer ⇔ moving; frozen ⇔ every byte unchanged.

    Digests of all parameters and buffers are taken when the phase begins and compared when it ends.
    """

    def __init__(self, model: nn.Module, phase: Phase, optimizer: torch.optim.Optimizer) -> None:
        self._model = model
        self._rates = {id(p): group["base_lr"] for group in optimizer.param_groups for p in group["params"]}
        self._frozen = {name: tensor_digest(tensor) for name, tensor in _frozen_state(model, phase)}
        self._trained = {name: tensor_digest(p) for name, p in model.named_parameters() if p.requires_grad}
        self._check_ownership()

    def check_frozen(self) -> None:
        """Raise InvariantError naming the frozen tensors that changed."""
        state = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        moved = [name for name, digest in self._frozen.items() if tensor_digest(state[name]) != digest]
        if moved:
            raise InvariantError(
                f"{len(moved)} frozen tensors changed during training ({self._shown(moved)}). A callback, a hook or "
                "the model's own forward wrote to them; frozen layers must keep every byte."
            )

    def unmoved(self) -> list[str]:
        """Displayed names of trainable parameters, with a learning rate above 0, whose bytes did not change.

        A gradient too small to move a parameter (of a bias before a batch norm, which is rounding alone) is one.
        """
        still = [
            name
            for name, parameter in self._model.named_parameters()
            if self._rates.get(id(parameter))
            and (parameter.grad is None or not bool(parameter.grad.any()))
            and self._trained.get(name) == tensor_digest(parameter)
        ]
        return [display_name(self._model, name) for name in still]

    def _check_ownership(self) -> None:
        orphans = [n for n, p in self._model.named_parameters() if p.requires_grad and id(p) not in self._rates]
        if orphans:
            raise InvariantError(
                f"{len(orphans)} trainable parameters are in no optimizer group ({self._shown(orphans)}): they were "
                "replaced after the optimizer was built. Build the tuner after changing the model."
            )

    def _shown(self, names: Sequence[str]) -> str:
        return ", ".join(display_name(self._model, name) for name in names[:5])


def _frozen_state(model: nn.Module, phase: Phase) -> list[tuple[str, Tensor]]:
    return [
        (name, tensor)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        if covered(name, phase.frozen)
    ]
