"""Optional packages, imported where they are used and named when they are missing."""

from __future__ import annotations

import importlib
import importlib.metadata
from types import ModuleType

from .errors import MissingPackageError


def require(module: str, *, purpose: str, install: str | None = None) -> ModuleType:
    """Import `module`, or raise MissingPackageError that says what it is for and how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and not module.startswith(error.name.split(".")[0]):
            raise  # an import inside the package failed: its own message is the useful one
        command = f"pip install {install or module.split('.')[0]}"
        raise MissingPackageError(f"{purpose} needs the package {module.split('.')[0]!r}: {command}") from error


def version_of(package: str) -> str | None:
    """The version of an installed package; None where it is not there. Nothing is imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
