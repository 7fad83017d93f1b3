"""A folder of class folders: the files of each class, and whether it is what it seems to be."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ConfigurationError, EmptyDatasetError, NeurenixWarning
from .manifest import DataManifest

PARTS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


@dataclass(frozen=True, kw_only=True)
class LookedFor:
    """What a dataset looks for. file, files: what messages call one and several of them."""

    dataset: str
    file: str
    files: str
    extensions: tuple[str, ...]

    def ending(self, extensions: Sequence[str]) -> LookedFor:
        """The same with names that end otherwise, in any case."""
        return replace(self, extensions=tuple(end.lower() for end in extensions))


def find_class_files(
    root: Path, wanted: LookedFor, manifest: DataManifest | None
) -> tuple[list[str], list[Path], list[int]]:
    """(class names, files, class number of each file) below `root`, with those that only the manifest knows."""
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise EmptyDatasetError(f"{root} {what}; {wanted.dataset} needs a folder that holds one folder per class.")
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = [_files_below(folder, wanted.extensions, manifest) for folder in folders]
    if not any(files):
        raise EmptyDatasetError(_nothing_found(root, folders, wanted))
    empty = [folder.name for folder, found in zip(folders, files, strict=True) if not found]
    if empty:
        raise EmptyDatasetError(
            f"class folders without {wanted.files} in {root}: {', '.join(empty[:5])}. Looked for "
            f"{', '.join(wanted.extensions)}; add {wanted.files} or remove the folders."
        )
    _check_class_folders(root, [folder.name for folder in folders], files_directly_in(root, wanted.extensions), wanted)
    targets = [number for number, found in enumerate(files) for _ in found]
    return [folder.name for folder in folders], [path for found in files for path in found], targets


def files_directly_in(folder: Path, extensions: tuple[str, ...]) -> list[Path]:
    """The files of a folder itself with such names, sorted; hidden ones and those in folders below are left out."""
    return sorted(entry for entry in folder.iterdir() if _ends_so(entry.name, extensions) and entry.is_file())


def has_class_files(root: Path, extensions: tuple[str, ...]) -> bool:
    """Whether a folder below `root` holds a file with such a name; looks no further than the first one."""
    for parent, names, files in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".")]
        if Path(parent) != root and any(_ends_so(name, extensions) for name in files):
            return True
    return False


def _files_below(folder: Path, extensions: tuple[str, ...], manifest: DataManifest | None) -> list[Path]:
    found = []
    for parent, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        found += [Path(parent, name) for name in sorted(files) if _ends_so(name, extensions)]
    if manifest is not None:
        known = set(found)
        found += [path for path in manifest.below(folder) if path not in known and _ends_so(path.name, extensions)]
    return found


def _ends_so(name: str, extensions: tuple[str, ...]) -> bool:
    return name.lower().endswith(extensions) and not name.startswith(".")


def _nothing_found(root: Path, folders: list[Path], wanted: LookedFor) -> str:
    direct = len(files_directly_in(root, wanted.extensions))
    looked = f"{wanted.dataset} looked in {root} for class folders with {wanted.files} ({', '.join(wanted.extensions)})"
    if direct:
        return f"{looked} and found {direct} {wanted.files} directly in it; move them into one folder per class."
    if folders:
        names = ", ".join(folder.name for folder in folders[:5])
        return f"{looked} and found {len(folders)} folders ({names}) without any {wanted.file}."
    return f"{looked} and found no folder at all."


def _check_class_folders(root: Path, names: Sequence[str], loose: Sequence[Path], wanted: LookedFor) -> None:
    """Raise for parts of a data set in place of classes; warn of files that lie beside the class folders.

    names: of the class folders. loose: files directly in `root`, which belong to no class.
    """
    if names and all(name.lower() in PARTS for name in names):
        given = ", ".join(os.fspath(root / name) for name in names)
        raise ConfigurationError(
            f"{root} holds {' and '.join(names)}, which are parts of a data set and no classes; give each by itself, "
            f"as training or validation data: {given}."
        )
    if loose:
        warnings.warn(
            f"{len(loose)} {wanted.files} lie directly in {root}, beside its class folders ({loose[0].name}, …); they "
            "belong to no class and are left out.",
            NeurenixWarning,
            stacklevel=5,
        )
