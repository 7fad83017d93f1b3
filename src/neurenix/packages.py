"""Optional packages, imported where they are used and named when they are missing."""

from __future__ import annotations

import importlib
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
