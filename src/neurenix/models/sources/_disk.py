"""Weights that are a file or a folder on this machine."""

from __future__ import annotations

from pathlib import Path

from ...errors import WeightsNotFoundError
from .._records import PathSource
from ._fetched import CONFIGURATION, Fetched
from ._state_dict import TORCH_SUFFIXES

USUAL_NAMES = ("model.safetensors", "pytorch_model.bin")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES, ".index")


def find_on_disk(source: PathSource, *, sha256: str | None = None) -> Fetched:
    """The weights file at a path; in a folder, one of the usual names or the only file of its kind."""
    path = Path(source.path).expanduser()
    if path.is_dir():
        return Fetched(path=_file_in(path), folder=path, sha256=sha256)
    if not path.is_file():
        raise WeightsNotFoundError(
            f"There are no weights at {path.absolute()}; weights=PATH takes a .safetensors or .pth file, or "
            f"a folder with {' or '.join(USUAL_NAMES)}."
        )
    beside = path.parent if (path.parent / CONFIGURATION).is_file() else None
    return Fetched(path=path, folder=beside, sha256=sha256)


def _file_in(folder: Path) -> Path:
    for name in USUAL_NAMES:
        if (folder / name).is_file():
            return folder / name
    candidates = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    if len(candidates) == 1:
        return candidates[0]
    found = (
        f"{len(candidates)} weights files ({', '.join(path.name for path in candidates[:4])})" if candidates else "none"
    )
    raise WeightsNotFoundError(
        f"The folder {folder.absolute()} needs {' or '.join(USUAL_NAMES)}, or one weights file alone; found "
        f"{found}. Give the file itself as weights=PATH."
    )
