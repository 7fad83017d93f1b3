"""Whether a dataset gives the same sample each time it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UnreadableSampleError
from ._dataset import is_in_memory
from ._randomness import generator_states, own_random_state, seed_everything
from .preparation import pair

_TRIED, _SEARCHED = 3, 20  # samples; where some cannot be read, so many from the beginning are tried


def is_random(dataset: Any) -> bool:
    """Whether reading a sample draws from torch's, NumPy's or Python's generator, or gives something else each time.

    Asked of three samples, spread over the dataset; see Batch.drew and training.prefix for what those do not show.
    """
    if is_in_memory(dataset):
        return False
    if parts := getattr(dataset, "datasets", None):
        return any(is_random(part) for part in parts)
    tried, count = 0, len(dataset)
    spread = dict.fromkeys([0, count // 2, count - 1, *range(min(count, _SEARCHED))] if count else [])
    with own_random_state():
        for index in spread:
            try:
                first, drew = _read(dataset, index, seed=1)
                second, _ = _read(dataset, index, seed=2)
            except UnreadableSampleError:
                continue
            tried += 1
            if drew or not _same(first, second):
                return True
            if tried == _TRIED:
                break
    return False


def _read(dataset: Any, index: int, seed: int) -> tuple[Any, bool]:
    seed_everything(seed)
    before = generator_states()
    inputs = pair(dataset[index])[0]
    return inputs, generator_states() != before


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))
