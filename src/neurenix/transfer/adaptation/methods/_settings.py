"""Numbers that methods are set by, checked at the door."""

from __future__ import annotations

from collections.abc import Sequence

from ....errors import ConfigurationError, UnknownNameError


def check_positive(name: str, value: float) -> None:
    """Raise ConfigurationError for a number that is not above 0."""
    if not value > 0:
        raise ConfigurationError(f"{name}={value}; it is a number above 0.")


def check_at_least_zero(name: str, value: float) -> None:
    """Raise ConfigurationError for a number below 0."""
    if not value >= 0:
        raise ConfigurationError(f"{name}={value}; it is 0 (off) or more.")


def check_share(name: str, value: float, *, below_one: bool = False) -> None:
    """Raise ConfigurationError for what is no share. below_one: whether all of it is too much."""
    if not 0 <= value <= 1 or (below_one and value == 1):
        raise ConfigurationError(f"{name}={value}; it is a share, from 0 {'to below' if below_one else 'up to'} 1.")


def check_one_of(name: str, value: str, possible: Sequence[str]) -> None:
    """Raise UnknownNameError for a word that is not among the possible ones."""
    if value not in possible:
        raise UnknownNameError(name, value, possible)
