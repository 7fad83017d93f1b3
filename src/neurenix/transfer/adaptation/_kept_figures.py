"""The figures of adaptations that are finished, kept in a folder, so that a comparison goes on where it was ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from torch import nn

from ..._version import __version__
from ...data import is_random
from ...errors import ConfigurationError
from ...models.fingerprint import describe, key, module_digest
from ...storage import read_json, write_json
from ..features import samples
from ..features.fingerprint import data_digest
from ..features.fingerprint import versions as package_versions
from ._data import Given
from .method import AdaptationMethod, record_of

Figures = dict[str, Any]
_FORMAT = 4  # of what is kept for an adaptation: files of another one are not found


@final
class KeptFigures:
    """A folder with a file for each adaptation of a comparison. Without a folder nothing is kept, and nothing found.

    about: everything that decides the figures of all of them, see `about_comparison`.
    """

    def __init__(self, folder: str | Path | None, about: Mapping[str, Any]) -> None:
        self._folder = None if folder is None else Path(folder)
        self._about = dict(about)

    def find(self, method: AdaptationMethod, seed: int) -> Figures | None:
        """Those of a method and seed, or None. Raises DamagedFileError."""
        if self._folder is None:
            return None
        about = self._described(method, seed)
        path = _place(self._folder, about)
        kept = read_json(path) if path.is_file() else None
        if not isinstance(kept, dict) or key(kept.get("about", {})) != key(about):
            return None
        figures: Figures = kept["figures"]
        return figures

    def keep(self, method: AdaptationMethod, seed: int, figures: Figures) -> None:
        """Write those of a method and seed."""
        if self._folder is not None:
            about = self._described(method, seed)
            self._folder.mkdir(parents=True, exist_ok=True)
            write_json(_place(self._folder, about), {"about": about, "figures": figures})

    def _described(self, method: AdaptationMethod, seed: int) -> Figures:
        return {**self._about, "method": record_of(method), "seed": seed}


def about_comparison(model: nn.Module, given: Given, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The weights, data, versions and settings of a comparison as JSON values.

    Raises ConfigurationError for data that is never the same twice, which cannot be told from other data.
    """
    parts: Sequence[tuple[str, Any]] = (
        ("source", given.trained),
        ("held", given.held),
        ("target", given.target),
        ("reported", given.reported),
    )
    workers = given.reading.num_workers
    data = {name: None if part is None else _digest(name, part, model, workers) for name, part in parts}
    return {
        "neurenix": __version__,
        "format": _FORMAT,
        "versions": package_versions(),
        "model": module_digest(model),
        "data": data,
        "settings": describe(dict(settings)),
    }


def _place(folder: Path, about: Mapping[str, Any]) -> Path:
    """Named by all that decides the figures: other weights, data or settings have files of their own."""
    return folder / f"{about['method']['kind']}-{about['seed']}-{key(dict(about))[:16]}.json"


def _digest(name: str, dataset: Any, model: nn.Module, workers: int) -> dict[str, Any]:
    ready = samples.prepared(dataset, model)
    if is_random(ready):
        raise ConfigurationError(
            f"run=… finds what was finished by the content of the data, and the {name} samples differ each time they "
            "are read. Leave run out, or give them without random transforms."
        )
    return data_digest(ready, samples.length(ready), workers, None)
