"""Archives of a stranger, unpacked into one folder and nowhere else, in bounded time and space, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from stat import S_ISDIR, S_ISREG
from typing import IO, Any

from .errors import DamagedFileError, UnsafeFileError
from .storage import cache_folder, file_sha256, inside

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_MOST_BYTES = 64 << 30
_MOST_MEMBERS = 2_000_000
_LARGEST_RATIO = 200  # unpacked to packed, beyond the first 64 MiB; photographs reach 1, texts 10
_FREE_BYTES = 64 << 20
_LONGEST_NAME = 200  # bytes of one part of a path
_BLOCK = 1 << 20


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_folder: bool
    handle: Any


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive which `extract` reads."""
    return path.name.lower().endswith(SUFFIXES)


def unpacked(archive: Path) -> Path:
    """The folder with an archive's content, unpacked once into the cache: under the SHA-256 of its bytes.

    An archive that holds one folder and nothing else gives that folder.
    """
    folder = cache_folder() / "archives" / file_sha256(archive)[:32]
    if not folder.is_dir():
        extract(archive, folder)
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def extract(archive: Path, folder: Path) -> None:
    """Unpack into `folder`, which must not exist: it appears when all is there, or never.

    Only plain files and folders are made, with ordinary permissions. Raises UnsafeFileError, naming the member, for
    paths that leave the folder, links, devices, names that fall together on another system, and for archives that hold
    far more than they weigh; DamagedFileError for what is no whole archive.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name[:100]}.", dir=folder.parent))
    try:
        _unpack(archive, temporary)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # another process was first with the same bytes
                raise
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, ValueError, OSError) as error:
        if isinstance(error, (UnsafeFileError, DamagedFileError)) or getattr(error, "errno", None) is not None:
            raise
        raise DamagedFileError(f"{archive} is not a whole archive ({error}); fetch or pack it again.") from error
    except RuntimeError as error:  # zipfile's word for an encrypted member
        raise UnsafeFileError(f"{archive} cannot be unpacked: {error}. Pack it without a password.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack(archive: Path, folder: Path) -> None:
    budget = min(_MOST_BYTES, _FREE_BYTES + _LARGEST_RATIO * archive.stat().st_size)
    seen: dict[str, str] = {}
    written = 0
    with _opened(archive) as (members, reader):
        for number, member in enumerate(members):
            if number >= _MOST_MEMBERS:
                raise UnsafeFileError(f"{archive} has more than {_MOST_MEMBERS:,} members; unpack it yourself.")
            target = _target(archive, folder, member, seen)
            if member.is_folder:
                target.mkdir(parents=True, exist_ok=True)
                continue
            if written + member.size > budget:
                raise _too_much(archive, written + member.size)
            target.parent.mkdir(parents=True, exist_ok=True)
            written += _copy(archive, reader(member), target, budget - written)


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[Iterator[_Member], Any]]:
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as packed:
            yield _zip_members(archive, packed), lambda member: packed.open(member.handle)
    else:
        with tarfile.open(archive, mode="r:*") as packed_tar:
            yield _tar_members(archive, packed_tar), lambda member: packed_tar.extractfile(member.handle)


def _zip_members(archive: Path, packed: zipfile.ZipFile) -> Iterator[_Member]:
    for entry in packed.infolist():
        mode = entry.external_attr >> 16
        if mode and not (S_ISREG(mode) or S_ISDIR(mode) or mode < 0o10000):
            raise _unsafe(archive, entry.filename, "is a link or a device")
        yield _Member(entry.orig_filename, entry.file_size, entry.is_dir(), entry)


def _tar_members(archive: Path, packed: tarfile.TarFile) -> Iterator[_Member]:
    for entry in packed:
        if not (entry.isreg() or entry.isdir()):
            raise _unsafe(archive, entry.name, "is a link or a device")
        yield _Member(entry.name, entry.size, entry.isdir(), entry)
    _check_the_end(archive, packed)


def _check_the_end(archive: Path, packed: tarfile.TarFile) -> None:
    """Read what follows the last member, as tarfile does not: there a compressed stream has its checksum."""
    assert packed.fileobj is not None  # open for reading
    rest = 0
    while block := packed.fileobj.read(_BLOCK):
        rest += len(block)
        if rest > _FREE_BYTES:
            raise _too_much(archive, rest)


def _target(archive: Path, folder: Path, member: _Member, seen: dict[str, str]) -> Path:
    """Where a member goes; raises for names that could go anywhere else, or onto another member's."""
    name = member.name
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    if path.is_absolute() or windows.drive or windows.root or "\\" in name or ".." in path.parts:
        raise _unsafe(archive, name, "leaves the folder")
    if not path.parts or any(ord(letter) < 32 for letter in name):
        raise _unsafe(archive, name, "is no name of a file")
    if any(len(part.encode("utf-8", "surrogateescape")) > _LONGEST_NAME for part in path.parts) or len(name) > 1000:
        raise _unsafe(archive, name, "has a name that is too long")
    plain = unicodedata.normalize("NFC", path.as_posix()).casefold()
    if not member.is_folder and seen.setdefault(plain, name) is not name:
        raise _unsafe(archive, name, f"falls together with {seen[plain]!r} on other systems")
    return inside(folder, name)


def _copy(archive: Path, source: IO[bytes] | None, target: Path, allowed: int) -> int:
    """Bytes written; what is really there counts, whatever was declared."""
    written = 0
    if source is None:
        raise _unsafe(archive, target.name, "has no content")
    with source, target.open("xb") as stream:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > allowed:
                raise _too_much(archive, written)
            stream.write(block)
    return written


def _unsafe(archive: Path, name: str, reason: str) -> UnsafeFileError:
    return UnsafeFileError(f"{archive}: {name[:80]!r} {reason}; nothing was unpacked. Look at it with care.")


def _too_much(archive: Path, size: int) -> UnsafeFileError:
    return UnsafeFileError(
        f"{archive} holds {size:,} bytes or more in {archive.stat().st_size:,}; so much is no data but a way to fill a "
        "disk, and nothing was unpacked. Unpack it yourself if you know it."
    )
