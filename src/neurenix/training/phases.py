"""Entering and leaving the phases of a freeze schedule, and what each promised."""

from __future__ import annotations

import warnings
from typing import final

import torch

from ..errors import UnusedParameterWarning
from ..models import PretrainedModel
from .freezing import Phase, StateWatch, apply_phase
from .processes import Processes

_ENOUGH = 3  # steps: blocks that begin as the identity have a gradient from the second one on


@final
class PhaseKeeper:
    """Knows the phase that is on, and checks at its end that frozen layers kept every byte and trained ones moved."""

    def __init__(self, model: PretrainedModel, optimizer: torch.optim.Optimizer, processes: Processes) -> None:
        self.current: Phase | None = None
        self._model, self._optimizer, self._processes = model, optimizer, processes
        self._watch: StateWatch | None = None
        self._began = 0
        self._resumed = False

    def enter(self, phase: Phase, steps: int, *, resumed: bool = False) -> bool:
        """Make `phase` the current one, after `steps` optimizer steps, and tell whether it was not.

        resumed: an earlier process trained in it.
        """
        if phase is self.current:
            return False
        self.leave(steps)
        self.current = phase
        apply_phase(self._model, phase)
        self._processes.wrap(self._model)
        self._watch, self._began = StateWatch(self._model, phase, self._optimizer), steps
        self._resumed = resumed
        return True

    def leave(self, steps: int) -> None:
        """Check what the ending phase promised."""
        if self._watch is None:
            return
        self._watch.check_frozen()
        # what moved before a resumption cannot be seen any more, and the last steps may be too small to see
        unmoved = self._watch.unmoved() if steps - self._began >= _ENOUGH and not self._resumed else []
        self._watch = None
        if unmoved:
            warnings.warn(
                f"{len(unmoved)} trainable parameters did not move ({', '.join(unmoved[:5])}): the loss does not "
                "depend on them. Freeze them, or check the model's forward.",
                UnusedParameterWarning,
                stacklevel=2,
            )
