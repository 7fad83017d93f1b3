"""How many directions are kept."""

from __future__ import annotations

from .....errors import ConfigurationError


def checked_components(components: int | None, most: int | None = None) -> int:
    """The number of directions, at most `most`. Raises ConfigurationError for one that there cannot be."""
    wanted = (1 if most is None else most) if components is None else components
    if wanted < 1 or (most is not None and wanted > most):
        possible = "1 or more" if most is None else f"1 to {most}, the least of features and samples of each domain"
        raise ConfigurationError(f"components={components}; possible: {possible}, or None for as many as can be.")
    return wanted
