"""Features, targets and places of some samples, collected from a loader's batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...data import Batch, Skipped
from ...devices import Arriving
from ...errors import EmptyDatasetError, InputMismatchError
from .progress import Progress

_AT_ONCE = 2  # batches of features on their way from a GPU


@dataclass(frozen=True)
class Rows:
    """features: (n, d) on the CPU. targets: (n, …) or None. indices: (n,) places in the dataset, rising.
    skipped: samples that could not be read and have no row.
    """

    features: Tensor
    targets: Tensor | None
    indices: Tensor
    skipped: tuple[Skipped, ...] = ()


def collect(batches: Iterable[Batch], features_of: Callable[[Batch], Tensor], progress: Progress) -> Rows:
    """Run all batches and give their rows in the dataset's order; features are (0, 0) when no sample was readable."""
    features: list[Tensor] = []
    arriving = deque[Arriving]()
    targets, indices = [], []
    skipped: list[Skipped] = []
    for batch in batches:
        skipped += batch.skipped
        if len(batch):
            arriving.append(Arriving(features_of(batch)))
            if len(arriving) > _AT_ONCE:  # the device is not waited for before it has the next batch
                features.append(arriving.popleft().arrived())
            indices.append(batch.indices.cpu())
            targets += [batch.targets.cpu()] if isinstance(batch.targets, Tensor) else []
        progress.advance(len(batch) + len(batch.skipped))
    features += [tensor.arrived() for tensor in arriving]
    check_widths(features)
    if not features:
        return Rows(torch.empty(0, 0), None, torch.empty(0, dtype=torch.long), tuple(skipped))
    order = torch.cat(indices).argsort()
    return Rows(
        features=torch.cat(features)[order],
        targets=torch.cat(targets)[order] if targets else None,
        indices=torch.cat(indices)[order],
        skipped=tuple(skipped),
    )


def renumbered(rows: Rows, places: Sequence[int]) -> Rows:
    """The rows of a part of a dataset with the numbers that its samples have in the whole."""
    return replace(
        rows,
        indices=torch.tensor([places[index] for index in rows.indices.tolist()], dtype=torch.long),
        skipped=tuple(replace(sample, index=places[sample.index]) for sample in rows.skipped),
    )


def joined(parts: Sequence[Rows]) -> Rows:
    """All rows of several parts, in their order; raises EmptyDatasetError when there are none."""
    skipped = tuple(sample for part in parts for sample in part.skipped)
    full = [part for part in parts if len(part.indices)]
    if not full:
        raise EmptyDatasetError(
            f"there are no features, because none of the {len(skipped)} samples could be read"
            + (f"; the first is {skipped[0].name}: {skipped[0].reason}" if skipped else "")
            + "."
        )
    features = [part.features for part in full]
    check_widths(features)
    targets = [part.targets for part in full if part.targets is not None]
    return Rows(
        torch.cat(features),
        torch.cat(targets) if targets else None,
        torch.cat([part.indices for part in full]),
        skipped,
    )


def check_widths(parts: Sequence[Tensor]) -> None:
    """Raise InputMismatchError unless all parts have the same shape after the first dimension."""
    shapes = sorted({tuple(part.shape[1:]) for part in parts})
    if len(shapes) > 1:
        raise InputMismatchError(
            f"batches give features of different shapes ({', '.join(map(str, shapes[:3]))}), which make no one matrix: "
            "the inputs have different sizes and pooling='none' keeps them. Use pooling='avg', or inputs of one size."
        )
