"""Samples that lie in memory side by side, as a batch by one operation, and not by some for each of them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

Gathered: TypeAlias = "tuple[Tensor, Tensor | None]"  # inputs and targets of a batch


def taken(values: Tensor | np.ndarray, places: Tensor) -> Tensor:
    """values[places], one row after the other; float64 of NumPy as float32.

    Of tensors in memory that a GPU copies from by itself, once there is one.
    """
    if not isinstance(values, Tensor):
        found = np.ascontiguousarray(values[places.numpy()])
        return torch.from_numpy(found.astype(np.float32) if found.dtype == np.float64 else found)
    if not torch.cuda.is_initialized() or values.device.type != "cpu" or values.requires_grad:
        return values[places.to(values.device)].contiguous()
    batch = torch.empty(len(places), *values.shape[1:], dtype=values.dtype, pin_memory=True)
    return torch.index_select(values, 0, places, out=batch)


def targets_taken(targets: np.ndarray | None, places: Tensor) -> Tensor | None:
    """(n,) int64 or float32, or (n, …); None where there are none."""
    if targets is None:
        return None
    found = torch.from_numpy(np.ascontiguousarray(targets[places.numpy()]))
    return found if found.ndim > 1 else found.to(torch.float32 if found.is_floating_point() else torch.int64)
