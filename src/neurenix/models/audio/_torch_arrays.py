"""Torch files that hold NumPy arrays beside tensors, read without NumPy's unpickling.

NumPy's own classes are not let in: what they are told while they are unpickled can make them read memory that is not
theirs.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from ..sources import Noted, load_with_stand_ins

_KINDS = {"f4": torch.float32, "f8": torch.float64, "i4": torch.int32, "i8": torch.int64}


@final
class _Array:
    """What an array's pickle says: (version, shape, dtype, whether columns come first, bytes)."""

    def __init__(self, *given: Any) -> None:
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def tensor(self) -> Tensor | None:
        """Its numbers; None for what is no plain array of them."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            return None
        _, shape, kind, columns_first, content = self.state
        dtype = _KINDS.get(str(kind.given[0])) if isinstance(kind, Noted) and kind.given else None
        little = isinstance(kind, Noted) and tuple(kind.state)[1:2] == ("<",)
        if dtype is None or not little or not isinstance(content, bytes) or not _is_shape(shape):
            return None
        if math.prod(shape) * dtype.itemsize != len(content) or not content:
            return None
        flat = torch.frombuffer(bytearray(content), dtype=dtype)
        return flat.reshape(shape[::-1]).permute(*range(len(shape))[::-1]) if columns_first else flat.reshape(shape)


_STAND_INS: dict[str, Any] = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.core.multiarray.scalar": Noted,
    "numpy._core.multiarray.scalar": Noted,
    "numpy.dtype": Noted,
    "numpy.ndarray": Noted,
}


def load_with_arrays(path: Path) -> Any:
    """What a torch file holds, with tensors in place of arrays of numbers, and without other arrays in mappings.

    Raises UnsafeFileError for a file that holds anything else than tensors, arrays and plain values, DamagedFileError
    for one that is not whole.
    """
    return load_with_stand_ins(path, _STAND_INS.get, opened=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        opened = {name: _plain(part) for name, part in value.items()}
        return {name: part for name, part in opened.items() if not isinstance(part, (Noted, type(None)))}
    return value.tensor() if isinstance(value, _Array) else value


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(type(length) is int and length >= 0 for length in shape)
