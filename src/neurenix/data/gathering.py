"""Samples that lie in memory side by side, as a batch by one operation, and not by some for each of them."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Gathered: TypeAlias = "tuple[Tensor, Tensor | None] | None"


def gathered(dataset: Any, places: Tensor) -> Gathered:
    """What collate would make of `dataset[place]` for each of the places, (n,) int64; None for data that cannot."""
    gather = getattr(dataset, "gather", None)
    found: Gathered = None if gather is None else gather(places)
    return found


def taken(values: Tensor | np.ndarray, places: Tensor) -> Tensor:
    """values[places]; float64 of NumPy as float32. In memory that a GPU copies from by itself, once there is one."""
    if not isinstance(values, Tensor):
        rows = np.asarray(values[places.numpy()])
        return torch.from_numpy(rows.astype(np.float32) if rows.dtype == np.float64 else rows)
    if not torch.cuda.is_initialized() or values.device.type != "cpu" or values.requires_grad:
        return values[places.to(values.device)]
    batch = torch.empty(len(places), *values.shape[1:], dtype=values.dtype, pin_memory=True)
    return torch.index_select(values, 0, places, out=batch)


def targets_taken(targets: np.ndarray | None, places: Tensor) -> Tensor | None:
    """(n,) int64 or float32, or (n, …); None where there are none."""
    if targets is None:
        return None
    rows = torch.from_numpy(targets[places.numpy()])
    return rows if rows.ndim > 1 else rows.to(torch.float32 if rows.is_floating_point() else torch.int64)
