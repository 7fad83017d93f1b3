"""Units of values, one for each output."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import ConfigurationError


def check_units(units: Sequence[str], num_outputs: int) -> None:
    """Raise ConfigurationError where there are units, but not one for each value."""
    if units and len(units) != num_outputs:
        raise ConfigurationError(
            f"units={list(units)} for num_outputs={num_outputs}; give one for each value, or none at all."
        )
