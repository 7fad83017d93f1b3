"""The frozen layers at work: a batch's boundary is found on disk, or computed the fastest way."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, final

import torch
from torch import nn

from ...backends import Forward, eager, fast_forward, named
from ...data import Batch, work
from ...devices import same_sample
from ..environment import environment
from ..faults import in_fitting_parts
from .feeds import ReuseOptions
from .kept import KeptBatches
from .layout import Layout
from .rehearsal import close
from .store import Boundary

TRIED = 2  # samples that are computed again before anything that was stored is trusted


@final
class FrozenLayers:
    """Batch -> boundary, on the CPU.

    prefix: the layers, in the modes that they are to run in. example: gives the first of all batches; the backend is
    built for batches like it, when it is first needed. dataset, views: the samples that will be asked for, and how
    often. size: bytes of all their rows. precision, exact: see fast_forward. say: is told what a user should know.
    """

    def __init__(
        self,
        prefix: nn.Module,
        example: Callable[[], Batch],
        device: torch.device,
        *,
        dataset: Any,
        views: int,
        size: float,
        precision: str,
        exact: bool,
        options: ReuseOptions,
        say: Callable[[str], None],
    ) -> None:
        self._prefix, self._device, self._precision, self._say = prefix, device, precision, say
        self._exact = exact
        self._kept, self._trusted = None, False
        if options.keep:
            about = {**environment(device, precision, 1), "exact": exact, "backend": options.backend}
            self._kept = KeptBatches(prefix, about, size, say)

        @functools.cache
        def forward() -> Forward:
            inputs = example().to(device).inputs
            samples = views * work(dataset, inputs)
            return fast_forward(
                prefix,
                inputs,
                samples=samples,
                precision=precision,
                exact=exact,
                backend=options.backend,
                arranged=Layout(prefix, training=False),
                say=say,
            )

        self._forward = forward

    def __call__(self, batch: Batch) -> Boundary:
        """From disk where an earlier run kept it, for these very inputs."""
        boundary = self._found(batch)
        if boundary is None:
            boundary = boundary_of(batch, self._forward(), self._device)
            if self._kept is not None:
                self._kept.keep(batch, boundary)
        return boundary

    def finish(self) -> None:
        """Tell how much was found."""
        if self._kept is not None and self._kept.found:
            self._say(f"{self._kept.found} batches had been through the frozen layers before; see {self._kept.folder}")

    def _found(self, batch: Batch) -> Boundary | None:
        """What was kept. The first that is found is compared with what the layers give now for some of its samples."""
        found = None if self._kept is None else self._kept.find(batch)
        if self._kept is None or found is None or self._trusted:
            return found
        few = batch.parts(TRIED)[0]
        fresh = boundary_of(few, eager(self._prefix, self._device, self._precision), self._device)
        self._trusted = _agree(found, fresh, same_sample(self._exact, self._device))
        if self._trusted:
            return found
        self._say(f"what an earlier run kept in {self._kept.folder} is not what the layers give now; it is removed")
        self._kept.forget()
        return None


def boundary_of(batch: Batch, forward: Forward, device: torch.device) -> Boundary:
    """What a forward pass gives for a batch, on the CPU, row after row; in parts where memory is short."""

    def compute(part: Batch) -> Boundary:
        return {name: tensor.cpu().contiguous() for name, tensor in named(forward(part.to(device).inputs)).items()}

    parts = in_fitting_parts(batch, compute)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _agree(kept: Boundary, fresh: Boundary, tolerance: float) -> bool:
    """Whether a batch's kept boundary begins as that of its first samples does."""
    if [(name, rows.dtype, rows.shape[1:]) for name, rows in sorted(kept.items())] != [
        (name, rows.dtype, rows.shape[1:]) for name, rows in sorted(fresh.items())
    ]:
        return False
    return all(close(kept[name][: len(rows)], rows, tolerance) for name, rows in fresh.items())
