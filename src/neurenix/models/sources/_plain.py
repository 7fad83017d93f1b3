"""Are the tensors that a file gave plain arrays of numbers, and does it hold all of these numbers?"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ...errors import UnsafeFileError, WeightsMismatchError
from .._records import StateDict

_NUMBERS = frozenset(
    getattr(torch, name)
    for name in (
        *("float16", "bfloat16", "float32", "float64", "bool"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
)
_MOST_NAMES = 8  # for the same bytes; a translation model has four for its embedding
_FREE_BYTES = 1 << 20


def check_plain(path: Path, state: StateDict) -> StateDict:
    """`state` itself, when it can be trusted to be of the sizes that it says.

    A few bytes can describe a tensor of any size: one number repeated by strides of 0, no storage at all, a side
    without length beside one of a billion. Networks are built after such sizes, so they are refused here.

    Raises UnsafeFileError for tensors larger than their bytes, WeightsMismatchError for what is no plain array
    (sparse, quantised, complex, on the meta device) or has rows without a number in them.
    """
    storages: dict[int, int] = {}
    declared = 0
    for name, tensor in state.items():
        _check_kind(path, name, tensor)
        size, held = tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes()
        if size > held:
            raise UnsafeFileError(
                f"{path} describes {name[:200]!r} as {_shown(tensor)}, {size:,} bytes, and holds {held:,} of them; it "
                "repeats numbers to fill memory and is refused. Save a whole copy of each tensor where you trust it."
            )
        declared += size
        storages[tensor.untyped_storage().data_ptr()] = held
    if declared > _MOST_NAMES * sum(storages.values()) + _FREE_BYTES:
        raise UnsafeFileError(
            f"{path} gives {sum(storages.values()):,} bytes so many names that they would be {declared:,}; it is a way "
            "to fill memory and is refused. Save each tensor under its own name where you trust it."
        )
    return state


def _check_kind(path: Path, name: str, tensor: Tensor) -> None:
    nested = tensor.is_nested or tensor.is_quantized or tensor.layout is not torch.strided
    if nested or tensor.device.type != "cpu" or tensor.dtype not in _NUMBERS:
        raise WeightsMismatchError(
            f"{path} holds {name[:200]!r} as {tensor.layout} {tensor.dtype} on {tensor.device}, and only plain arrays "
            "of numbers are read; save it dense, in float32 or float16."
        )
    if tensor.ndim > 1 and not tensor.numel():
        raise WeightsMismatchError(
            f"{path} holds {name[:200]!r} as {_shown(tensor)}, without a number in it; it is no weight of a network."
        )


def _shown(tensor: Tensor) -> str:
    return f"{str(list(tensor.shape))[:100]} {tensor.dtype}"
