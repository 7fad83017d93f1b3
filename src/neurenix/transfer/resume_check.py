"""Does a killed fit end with the same bits, with this model, this data, these callbacks? Tried, not believed."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Subset

from ..callbacks import Callback
from ..data import as_dataset
from ..errors import ConfigurationError, ResumeError
from ..models import display_name
from ..storage import tensor_digest

if TYPE_CHECKING:
    from .tuner import Tuner

_EPOCHS = 2


class _Killed(BaseException):
    """Ends a fit as a kill would: nothing is saved on the way out."""


class _Kill(Callback):
    """Ends the fit after so many steps of this process, before the last of them is saved."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self._left -= 1
        if self._left == 0:
            raise _Killed


@dataclass(frozen=True)
class ResumeCheck:
    """same: whether the killed and resumed fit ended with the bits of the whole one. differences: what did not.

    steps: optimizer steps of each. kills: after which of them it was killed.
    """

    same: bool
    differences: tuple[str, ...]
    steps: int
    kills: tuple[int, ...]

    def __bool__(self) -> bool:
        return self.same

    def __str__(self) -> str:
        kills = " and ".join(str(step) for step in self.kills)
        tried = f"{self.steps} steps, whole and killed in steps {kills}"
        if self.same:
            return f"{tried}: the same bits in weights, buffers, moments and history"
        shown = ", ".join(self.differences[:8]) + (" …" if len(self.differences) > 8 else "")
        return (
            f"{tried}: {len(self.differences)} things differ ({shown}). Something draws at random or keeps a state "
            "that the run folder does not know: a transform with a generator of its own, a callback without "
            "state_dict, a layer with attributes that change, or kernels that add in another order each time."
        )


def check_resume(
    tuner: Tuner,
    train: Any,
    validation: Any,
    batch_size: int,
    callbacks: Sequence[Callback] | Callback,
    num_workers: int,
    steps: int,
) -> ResumeCheck:
    """See Tuner.resume_check."""
    if steps < 2:
        raise ConfigurationError(f"steps={steps}; an epoch of at least 2 is needed to be killed in its middle.")
    size = batch_size * tuner.settings.accumulation_steps
    some, few = _first(train, steps * size), None if validation is None else _first(validation, 2 * batch_size)
    per_epoch = -(-len(some) // size)
    kills = (max(1, per_epoch // 2), per_epoch)  # counted anew in each process, whose last step is lost

    def fit(copied: Tuner, run: Path, *more: Callback) -> Tuner:
        own = [copy.deepcopy(callbacks)] if isinstance(callbacks, Callback) else copy.deepcopy(list(callbacks))
        copied.fit(some, few, batch_size, _EPOCHS, [*own, *more], num_workers, run=run, checkpoint_every=1)
        return copied

    with tempfile.TemporaryDirectory(prefix="neurenix-resume-check-") as folder:
        whole = fit(copy.deepcopy(tuner), Path(folder) / "whole")
        try:
            for kill in kills:
                with contextlib.suppress(_Killed):
                    fit(copy.deepcopy(tuner), Path(folder) / "killed", _Kill(kill))
            differences = _differences(whole, fit(copy.deepcopy(tuner), Path(folder) / "killed"))
        except ResumeError as error:  # the data are others each time that they are read
            differences = [str(error).partition(": ")[2]]
    done = (kills[0], kills[0] - 1 + kills[1])
    return ResumeCheck(not differences, tuple(differences), _EPOCHS * per_epoch, done)


def _first(data: Any, count: int) -> Any:
    dataset = as_dataset(data)
    return Subset(dataset, range(min(count, len(dataset))))


def _differences(one: Tuner, other: Tuner) -> list[str]:
    left, right = _bits(one), _bits(other)
    return [name for name in left | right if left.get(name) != right.get(name)]


def _bits(tuner: Tuner) -> dict[str, str]:
    model = tuner.model
    bits = {display_name(model, name): tensor_digest(tensor) for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in tuner.optimizer.state.get(parameter, {}).items():
            content = tensor_digest(value) if isinstance(value, torch.Tensor) else repr(value)
            bits[f"{display_name(model, name)}, the optimizer's {key}"] = content
    for epoch, record in enumerate(tuner.history.epochs):
        bits |= {f"epoch {epoch} {name}": repr(value) for name, value in record.items() if name != "seconds"}
    return bits
