"""Files that are whole or absent: written beside their target, synced, renamed, and hashed.

Only safetensors and JSON are written. Tensors are read back by value (never memory-mapped), because a mapped
file that shrinks kills the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from .errors import DamagedFileError, UnsafeFileError

_BLOCK = 1 << 20


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; on success sync it and rename it over the target.

    The temporary file is beside the target, so the rename never crosses a file system; on any error it is
    removed and the previous target is untouched.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.{os.getpid()}.", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, target)
        _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(target: Path, content: bytes) -> None:
    """Replace `target` by `content`, atomically."""
    with replacing(target) as temporary:
        temporary.write_bytes(content)


def write_json(target: Path, value: Any) -> None:
    """Replace `target` by `value` as readable JSON, atomically. NaN and infinity are refused by json."""
    write_bytes(target, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Parse a JSON file; raises DamagedFileError naming the file when it is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is not valid JSON ({error}); restore it or write it anew.") from error


def write_tensors(target: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Replace `target` by a safetensors file, atomically, and return its SHA-256."""
    from safetensors.torch import save

    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, dict(metadata or {}))
    write_bytes(target, content)
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, *, sha256: str | None = None) -> dict[str, torch.Tensor]:
    """Read a safetensors file by value; the hash is taken of the very bytes that are parsed.

    Raises DamagedFileError when the hash differs or the format is broken.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = path.read_bytes()
    check_hash(path, hashlib.sha256(content).hexdigest(), sha256)
    try:
        return load(content)
    except SafetensorError as error:
        raise DamagedFileError(f"{path} is not a whole safetensors file ({error}); fetch or save it again.") from error


def check_hash(path: Path, found: str, expected: str | None) -> None:
    """Raise DamagedFileError unless `found` begins with `expected` (a full hash or a published prefix)."""
    if expected is not None and not found.startswith(expected.lower()):
        raise DamagedFileError(
            f"{path} has SHA-256 {found[:16]}…, expected {expected[:16]}…; it is damaged or another file. "
            "Delete it and fetch it again."
        )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def tensor_digest(tensor: torch.Tensor) -> str:
    """SHA-256 over dtype, shape and bytes of one tensor, as hex."""
    whole = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{whole.dtype}{tuple(whole.shape)}".encode())
    digest.update(whole.flatten().view(torch.uint8).numpy().data if whole.numel() else b"")
    return digest.hexdigest()


def inside(root: Path, name: str) -> Path:
    """The path of `name` below `root`; raises UnsafeFileError when it would leave the folder."""
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise UnsafeFileError(f"{name!r} points outside of {root}; only paths inside the folder are followed.")
    return path


def cache_folder() -> Path:
    """Where downloads live: $NEURENIX_HOME, else $XDG_CACHE_HOME/neurenix, else ~/.cache/neurenix."""
    home = os.environ.get("NEURENIX_HOME")
    if home:
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "neurenix"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
