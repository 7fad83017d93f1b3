"""Files that are whole or absent: written beside their target, synced, renamed, and hashed.

Only safetensors and JSON are written. Tensors are read back by value (never memory-mapped), because a mapped
file that shrinks kills the process.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from .errors import DamagedFileError, DiskFullError, UnsafeFileError
from .tensor_files import check_safetensors

_BLOCK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TEMPORARY = re.compile(r"^\..+\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)\.\w{8}$")
_REFERENCE = "__tensor__"
_DAY = 86_400.0  # seconds


@contextlib.contextmanager
def replacing(target: Path, size: int | None = None, synced: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; on success sync it and rename it over the target.

    The temporary file is beside the target, so the rename never crosses a file system; on any error it is
    removed and the previous target is untouched. size: bytes that will be written, where that is known.
    synced: outlives a loss of power; without, the file may then be there and not whole.
    Raises DiskFullError when there is no room.
    """
    with _naming_full_disks(target, size):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _new_temporary(target)
        try:
            yield temporary
            if synced:
                _sync(temporary)
            os.replace(temporary, target)
            if synced:
                _sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> list[Path]:
    """Remove what dead processes left half written in `folder` and below it, and return it; files of live ones stay.

    Of other machines, whose processes cannot be seen, only files that were untouched for a day are removed.
    """
    removed = []
    for path in folder.rglob(".*"):
        match = _TEMPORARY.match(path.name)
        with contextlib.suppress(FileNotFoundError):  # its writer has just finished it
            if match and _is_abandoned(path, match["machine"], int(match["process"])):
                path.unlink()
                removed.append(path)
    return removed


def write_bytes(target: Path, content: bytes, synced: bool = True) -> None:
    """Replace `target` by `content`, atomically. synced: see replacing."""
    with replacing(target, len(content), synced) as temporary:
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


def write_hashed(
    folder: Path,
    stem: str,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
    synced: bool = True,
) -> Path:
    """Write `stem.<sha256>.safetensors` into `folder`: a file that says itself whether it is whole.

    synced: see replacing; what can be computed again need not be.
    """
    content = _packed(tensors, metadata)
    target = folder / f"{stem}.{hashlib.sha256(content).hexdigest()}.safetensors"
    write_bytes(target, content, synced)
    return target


def read_hashed(path: Path) -> dict[str, torch.Tensor]:
    """Read what write_hashed wrote; raises DamagedFileError when the bytes are not those of the name."""
    return read_tensors(path, sha256=path.name.split(".")[-2])


def write_state(folder: Path, stem: str, state: Any) -> Path:
    """Write nested dicts and lists of JSON values and tensors as one `stem.<sha256>.safetensors`."""
    tensors: dict[str, torch.Tensor] = {}
    return write_hashed(folder, stem, tensors, {"state": json.dumps(_without_tensors(state, "", tensors))})


def read_state(path: Path) -> Any:
    """What write_state wrote; raises DamagedFileError when the bytes are not those of the name."""
    content = _checked_bytes(path, path.name.split(".")[-2])
    tensors = _unpacked(path, content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return _with_tensors(json.loads(header["__metadata__"]["state"]), tensors)


def write_tensors(target: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Replace `target` by a safetensors file, atomically, and return its SHA-256."""
    content = _packed(tensors, metadata)
    write_bytes(target, content)
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, *, sha256: str | None = None) -> dict[str, torch.Tensor]:
    """Read a safetensors file by value; the hash is taken of the very bytes that are parsed.

    Raises DamagedFileError when the hash differs or the format is broken.
    """
    return _unpacked(path, _checked_bytes(path, sha256))


def _checked_bytes(path: Path, sha256: str | None) -> bytes:
    content = path.read_bytes()
    check_hash(path, hashlib.sha256(content).hexdigest(), sha256)
    return content


def _unpacked(path: Path, content: bytes) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    check_safetensors(content, str(path))
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


def _packed(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None) -> bytes:
    from safetensors.torch import save

    plain: dict[str, torch.Tensor] = {}
    memory: set[int] = set()
    for name, tensor in tensors.items():
        whole = tensor.detach().cpu().contiguous()
        # The format has no aliases: what shares memory (tied weights) is written twice.
        plain[name] = whole.clone() if whole.untyped_storage().data_ptr() in memory else whole
        memory.add(whole.untyped_storage().data_ptr())
    return save(plain, dict(metadata or {}))


def _without_tensors(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` with references in place of its tensors, which are put into `tensors` under their paths."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {_REFERENCE: name}
    if isinstance(value, Mapping):
        return {str(key): _without_tensors(item, f"{name}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_tensors(item, f"{name}/{place}", tensors) for place, item in enumerate(value)]
    return value


def _with_tensors(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_REFERENCE}:
            return tensors[value[_REFERENCE]]
        return {key: _with_tensors(item, tensors) for key, item in value.items()}
    return [_with_tensors(item, tensors) for item in value] if isinstance(value, list) else value


def _new_temporary(target: Path) -> Path:
    """An empty file beside `target` whose name says which process writes it."""
    prefix = f".{target.name[:150]}.{_machine()}-{os.getpid()}."
    handle, name = tempfile.mkstemp(prefix=prefix, dir=target.parent)
    os.close(handle)
    return Path(name)


@functools.cache
def _machine() -> str:
    """Eight hex digits for this host since its last start: within them a process number means one process."""
    started = Path("/proc/sys/kernel/random/boot_id")
    text = socket.gethostname() + (started.read_text() if started.exists() else "")
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _is_abandoned(path: Path, machine: str, process: int) -> bool:
    if machine != _machine():
        return time.time() - path.stat().st_mtime > _DAY
    return not process_is_alive(process)


def process_is_alive(process: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as another user
        return True
    return True


@contextlib.contextmanager
def _naming_full_disks(target: Path, size: int | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL or isinstance(error, DiskFullError):
            raise
        free = shutil.disk_usage(_existing(target.parent)).free
        needed = f"{size} bytes are needed" if size is not None else "more is needed"
        raise DiskFullError(
            error.errno,
            f"no room to write {target}: {needed}, {free} are free there ({os.strerror(error.errno)}). "
            "What was at this name before is untouched. Make room, or write elsewhere.",
        ) from error


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
