"""What a loader hands to the loop."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..devices import move


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be read: its place in the dataset, its name (a path, a row), and why."""

    index: int
    name: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Inputs and targets of some samples; unpacks as `inputs, targets = batch`.

    inputs: (n, …) or a mapping of such tensors. targets: (n,), (n, …) or a mapping of such tensors; None for unlabelled
        data.
    indices: (n,) places of the samples in their dataset. skipped: samples that were to be here and could not
        be read. place: 1-based number of the batch in its epoch.
    stand_in: nothing of this process's share of the batch could be read, and one sample of another batch takes its
        place, so that all processes make the same steps. It is seen a second time: leave it out of metrics.
    drew: reading a sample, or putting them together, drew random numbers: the next epoch may see them in another way.
    """

    inputs: Tensor | Mapping[str, Tensor]
    targets: Tensor | Mapping[str, Tensor] | None
    indices: Tensor
    skipped: tuple[Skipped, ...] = field(default=())
    place: int = 0
    stand_in: bool = False
    drew: bool = False

    def __iter__(self) -> Iterator[Any]:
        return iter((self.inputs, self.targets))

    def __len__(self) -> int:
        return int(self.indices.numel())

    @property
    def counted(self) -> int:
        """Samples that count in losses and metrics: all, or none of a stand-in."""
        return 0 if self.stand_in else len(self)

    @property
    def nbytes(self) -> int:
        """Bytes of inputs and targets."""
        tensors = [*_tensors(self.inputs), *(() if self.targets is None else _tensors(self.targets))]
        return sum(tensor.nbytes for tensor in tensors)

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on `device`."""
        return replace(self, inputs=move(self.inputs, device), targets=move(self.targets, device))

    def parts(self, size: int) -> list[Batch]:
        """The same samples in batches of at most `size`."""
        if len(self) <= size:
            return [self]
        return [self._part(slice(start, start + size)) for start in range(0, len(self), size)]

    def _part(self, chosen: slice) -> Batch:
        inputs, targets = rows(self.inputs, chosen), None if self.targets is None else rows(self.targets, chosen)
        return replace(self, inputs=inputs, targets=targets, indices=self.indices[chosen], skipped=())


def rows(values: Any, chosen: slice | Tensor) -> Any:
    """Some rows of a tensor or list, or of each tensor of a mapping."""
    if isinstance(values, Mapping):
        return {name: tensor[chosen] for name, tensor in values.items()}
    return values[chosen]


def _tensors(values: Tensor | Mapping[str, Tensor]) -> list[Tensor]:
    return list(values.values()) if isinstance(values, Mapping) else [values]


def skipped_lines(skipped: Iterable[Skipped]) -> str:
    """Samples that could not be read as lines of JSON, {"index", "name", "reason"}, each ended by a line feed.

    Plain ASCII, because a file's name may be no valid text.
    """
    return "".join(json.dumps(asdict(sample)) + "\n" for sample in skipped)
