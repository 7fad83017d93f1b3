"""Torch files that hold NumPy arrays beside tensors, read without NumPy's unpickling.

torch.load(weights_only=True) refuses such files. NumPy's own classes are not let in: what they are told while they are
unpickled can make them read memory that is not theirs. Records that only note what they are told stand in for them.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from ...errors import DamagedFileError, UnsafeFileError
from ...tensor_files import check_torch_archive

_KINDS = {"f4": torch.float32, "f8": torch.float64, "i4": torch.int32, "i8": torch.int64}


@final
class _Noted:
    """Whatever it is made with and told, it keeps; it stands for a dtype, a scalar or a class."""

    def __init__(self, *given: Any) -> None:
        self.given, self.state = given, ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


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
        dtype = _KINDS.get(str(kind.given[0])) if isinstance(kind, _Noted) and kind.given else None
        little = isinstance(kind, _Noted) and tuple(kind.state)[1:2] == ("<",)
        if dtype is None or not little or not isinstance(content, bytes) or not _is_shape(shape):
            return None
        if math.prod(shape) * dtype.itemsize != len(content) or not content:
            return None
        flat = torch.frombuffer(bytearray(content), dtype=dtype)
        return flat.reshape(shape[::-1]).permute(*range(len(shape))[::-1]) if columns_first else flat.reshape(shape)


_STAND_INS = [
    *((_Array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_Noted, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    (_Noted, "numpy.dtype"),
    (_Noted, "numpy.ndarray"),
]


def load_with_arrays(path: Path) -> Any:
    """What a torch file holds, with tensors in place of arrays of numbers, and without other arrays in mappings.

    Raises UnsafeFileError for a file that holds anything else than tensors, arrays and plain values, DamagedFileError
    for one that is not whole.
    """
    content = path.read_bytes()
    check_torch_archive(content, str(path))
    try:
        with torch.serialization.safe_globals(list(_STAND_INS)):
            return _plain(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except Exception as error:  # the parser of a damaged file may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        if "GLOBAL" in str(error) or "Unsupported" in str(error):
            raise UnsafeFileError(f"{path} holds more than tensors and arrays, so it is refused: {reason}") from None
        raise DamagedFileError(f"{path} is not a whole torch file ({reason}); fetch or save it again.") from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        opened = {name: _plain(part) for name, part in value.items()}
        return {name: part for name, part in opened.items() if not isinstance(part, (_Noted, type(None)))}
    return value.tensor() if isinstance(value, _Array) else value


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(type(length) is int and length >= 0 for length in shape)
