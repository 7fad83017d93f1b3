"""Is a file of tensors what its format promises? Looked at before a parser sees it or memory is taken for it.

safetensors' own parser lets two things pass that nobody writes by accident: a name that occurs twice, of which one
tensor silently wins, and tensors without elements that share an offset with others.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any, TypeGuard

from .errors import DamagedFileError, UnsafeFileError

_LARGEST_HEADER = 100_000_000  # bytes, as in the format's own definition
_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}
_PICKLE_STARTS = (b"\x80", b"(", b"c", b"]", b"}")
_SLACK = 1 << 20  # bytes, for the names and paddings of an archive


def check_safetensors(content: bytes, name: str) -> None:
    """Raise DamagedFileError, naming the tensor, unless the header describes exactly the bytes behind it.

    Raises UnsafeFileError for a pickle that only ends in .safetensors.
    """
    header = _header(content, name)
    metadata = header.pop("__metadata__", {})
    if not _is_text_map(metadata):
        raise _damaged(name, "its metadata are no map of texts")
    ends = 0
    for tensor, entry in sorted(header.items(), key=lambda item: _offsets(name, *item)):
        begin, end = _offsets(name, tensor, entry)
        if begin != ends:
            raise _damaged(name, f"the bytes of {tensor!r} begin at {begin}, those before it end at {ends}")
        if end - begin != _size(name, tensor, entry):
            raise _damaged(name, f"{tensor!r} is {entry['dtype']} {entry['shape']}, but has {end - begin} bytes")
        ends = end
    present = len(content) - 8 - int.from_bytes(content[:8], "little")
    if ends != present:
        raise _damaged(name, f"its tensors take {ends} bytes, and {present} are there")


def check_torch_archive(content: bytes, name: str) -> None:
    """Raise unless a torch file in zip form has its parts stored plainly; other forms are left to torch.

    torch never compresses, so a compressed or oversized part is no checkpoint but a way to fill memory.
    """
    if not content.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise _damaged(name, f"it is no whole archive ({error})", "torch") from error
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise UnsafeFileError(
            f"{name} holds compressed parts ({packed[0]!r}), which torch never writes; it is refused. Save its state "
            "dict as safetensors where you trust it."
        )
    declared = sum(entry.file_size for entry in entries)
    if declared > len(content) + _SLACK:
        raise _damaged(name, f"its parts are declared as {declared} bytes, and the file has {len(content)}", "torch")


def _header(content: bytes, name: str) -> dict[str, Any]:
    if content.startswith(_PICKLE_STARTS) and not content[8:9] == b"{":
        raise UnsafeFileError(
            f"{name} is a pickle under another name: reading it would run code, so it is refused. Load the original "
            "where you trust it, and save its state dict as safetensors."
        )
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(len(content) - 8, _LARGEST_HEADER):
        raise _damaged(name, f"its header is declared as {length} bytes, and the file has {len(content)}")
    try:
        header = json.loads(content[8 : 8 + length].decode("utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _damaged(name, f"its header cannot be read: {error}") from error
    if not isinstance(header, dict):
        raise _damaged(name, "its header is no map of tensors")
    return header


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} occurs twice")
    return found


def _offsets(name: str, tensor: str, entry: Any) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, Mapping) else None
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(name, f"{tensor!r} has no usable data_offsets")
    return offsets[0], offsets[1]


def _size(name: str, tensor: str, entry: Mapping[str, Any]) -> int:
    shape, kind = entry.get("shape"), entry.get("dtype")
    if not _are_sizes(shape) or kind not in _BYTES or len(entry) != 3:
        raise _damaged(name, f"{tensor!r} has shape {str(shape)[:60]} and dtype {str(kind)[:20]}")
    size = _BYTES[kind]
    for length in shape:
        size *= length
        if size > 1 << 62 or (length == 0 and max(shape) >= 1 << 62):
            raise _damaged(name, f"{tensor!r} has shape {str(shape)[:60]}, more than any memory")
    return size


def _are_sizes(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _damaged(name: str, reason: str, kind: str = "safetensors") -> DamagedFileError:
    return DamagedFileError(f"{name} is not a whole {kind} file: {reason}. Fetch or save it again.")
