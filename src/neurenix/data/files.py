"""What datasets of files share: paths, targets, what the files have to be; one folder per class."""

from __future__ import annotations

import abc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigurationError
from ._dataset import Dataset, check_on_bad, encode_labels, target_at
from .manifest import DataManifest, manifest_of


class Files(Dataset):
    """Files given by their paths, with or without targets. A subclass says how one is read."""

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        targets: Any,
        classes: Sequence[str] | None,
        on_bad: str,
        verify: bool | DataManifest,
    ) -> None:
        self.paths = [os.fspath(path) for path in paths]
        self.on_bad = check_on_bad(on_bad)
        self._manifest = manifest_of(self.paths) if verify is True else verify or None
        self._targets: np.ndarray | None
        self._targets, self.classes = (
            (None, list(classes or ())) if targets is None else encode_labels(targets, classes)
        )
        if self._targets is not None and len(self._targets) != len(self.paths):
            raise ConfigurationError(
                f"{len(self.paths)} paths and {len(self._targets)} targets; give one target per path."
            )

    @abc.abstractmethod
    def _read(self, path: str) -> Any:
        """The sample in a file. Raises UnreadableSampleError naming it."""

    @property
    def targets(self) -> np.ndarray | None:
        """Class numbers or values, one per file."""
        return self._targets

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._read(self.paths[index]), target_at(self._targets, index)

    def sample_name(self, index: int) -> str:
        """The file's path."""
        return self.paths[index]


class ClassFolders(Dataset):
    """One folder per class, files anywhere below it."""

    def __init__(self, root: str | os.PathLike[str], files: Files) -> None:
        self.root = Path(root)
        self._files = files
        self.classes, self.on_bad = files.classes, files.on_bad

    @property
    def paths(self) -> list[str]:
        """All files, class after class."""
        return self._files.paths

    @property
    def targets(self) -> np.ndarray | None:
        """Class numbers, one per file."""
        return self._files.targets

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._files[index]

    def sample_name(self, index: int) -> str:
        """The file's path."""
        return self._files.paths[index]
