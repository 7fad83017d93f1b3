"""What the files of a data folder were: damage that still decodes is found by their hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import Any, final

from ..errors import DamagedFileError, DataManifestError, UnreadableSampleError
from ..storage import file_sha256, read_json, write_bytes

NAME = "data-manifest.json"
_FORMAT = "neurenix data manifest 1"


def write_data_manifest(folder: str | os.PathLike[str]) -> Path:
    """Write size and SHA-256 of every file below `folder` into its data-manifest.json, and return that path.

    Hidden files are left out, and what cannot be read: reading it with verify=True names it. Write it once, when
    the files are known to be good, and again after every change that was meant.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataManifestError(f"{root} is no folder; give the one that holds the data.")
    files = {}
    for path in _files_below(root):
        try:
            check_regular(path)
            files[path.relative_to(root).as_posix()] = {"size": path.stat().st_size, "sha256": file_sha256(path)}
        except OSError:
            continue
    content = json.dumps({"format": _FORMAT, "files": files}, indent=1)  # ASCII: a name may be no valid text
    write_bytes(root / NAME, content.encode())
    return root / NAME


@final
@dataclass(frozen=True)
class DataManifest:
    """Size and SHA-256 of the files below `root`, by their paths from there."""

    root: Path
    files: Mapping[str, tuple[int, str]]

    @classmethod
    def of(cls, folder: str | os.PathLike[str]) -> DataManifest:
        """The manifest of `folder` or of the nearest folder above it; raises DataManifestError if there is none."""
        start = Path(os.path.abspath(folder))
        for root in (start, *start.parents):
            if (root / NAME).is_file():
                return cls(root, _checked(root / NAME))
        raise DataManifestError(
            f"verify=True compares files with {NAME}, which is neither in {start} nor above it. Write it while the "
            f"files are known to be good: neurenix.data.write_data_manifest({os.fspath(folder)!r})."
        )

    def read(self, path: str | os.PathLike[str]) -> bytes:
        """A file's bytes; raises UnreadableSampleError where they are not those of the manifest."""
        check_regular(path)
        content = Path(path).read_bytes()
        known = self.files.get(self._name(path))
        if known is None:
            raise UnreadableSampleError(
                f"{path} is not in {self.root / NAME}; if it belongs to the data, write the manifest again."
            )
        size, digest = known
        if len(content) != size:
            raise UnreadableSampleError(self._changed(path, f"it had {size} bytes and has {len(content)}"))
        if hashlib.sha256(content).hexdigest() != digest:
            raise UnreadableSampleError(self._changed(path, "its bytes have another SHA-256"))
        return content

    def below(self, folder: Path) -> list[Path]:
        """The files that the manifest has below `folder`, whether they are still there or not."""
        start = self._name(folder) + "/"
        return [folder / name.removeprefix(start) for name in self.files if name.startswith(start)]

    def _name(self, path: str | os.PathLike[str]) -> str:
        return Path(os.path.relpath(os.path.abspath(path), self.root)).as_posix()

    def _changed(self, path: str | os.PathLike[str], how: str) -> str:
        return (
            f"{path} changed since {self.root / NAME} was written: {how}. Restore it, or write the manifest again "
            "if the change was meant."
        )


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise OSError for what might never end or never begin when it is read: a pipe, a device; and for a folder."""
    if not S_ISREG(os.stat(path).st_mode):
        raise OSError("it is no regular file")


def _files_below(root: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith(".") and name != NAME)


def _checked(path: Path) -> dict[str, tuple[int, str]]:
    """The entries of a manifest; raises DataManifestError for a file that is none, or that leaves its folder."""
    advice = f"write it again: neurenix.data.write_data_manifest({os.fspath(path.parent)!r})."
    try:
        value = read_json(path)
    except (DamagedFileError, OSError) as error:
        raise DataManifestError(f"{path} cannot be read ({error}); {advice}") from error
    files = value.get("files") if isinstance(value, dict) and value.get("format") == _FORMAT else None
    if not isinstance(files, dict):
        raise DataManifestError(f"{path} is no manifest of data; {advice}")
    wrong = [name for name, entry in files.items() if not _is_entry(name, entry)]
    if wrong:
        raise DataManifestError(f"{path} has {len(wrong)} entries that cannot be (first: {wrong[0]!r}); {advice}")
    return {name: (entry["size"], entry["sha256"]) for name, entry in files.items()}


def _is_entry(name: str, entry: Any) -> bool:
    inside = bool(name) and not name.startswith("/") and ".." not in PurePosixPath(name).parts and "\0" not in name
    return (
        inside and isinstance(entry, dict) and type(entry.get("size")) is int and isinstance(entry.get("sha256"), str)
    )


def manifest_of(paths: Sequence[str]) -> DataManifest:
    """The manifest in the folder that all paths share, or above."""
    return DataManifest.of(os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths]))
