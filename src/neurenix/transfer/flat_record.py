"""A choice with its settings as a flat, frozen record: checked at the door, written as JSON, made again by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar, get_type_hints

from ..errors import ConfigurationError, DamagedFileError
from ..registry import Registry
from .arguments import as_list, check_types, plain

Record = dict[str, Any]  # {"kind": name, field: value, …}, JSON


@dataclass(frozen=True, kw_only=True)
class FlatRecord:
    """A base for choices; a subclass adds fields that JSON can hold, and is entered in a registry."""

    def check(self) -> None:
        """Raise ConfigurationError for values that cannot work; types are checked already."""

    def __post_init__(self) -> None:
        hints = {field.name: get_type_hints(type(self))[field.name] for field in fields(self)}
        for name, hint in hints.items():
            value = getattr(self, name)
            is_list = getattr(hint, "__origin__", None) is list
            object.__setattr__(self, name, as_list(value) if is_list else plain(value))
        check_types({name: getattr(self, name) for name in hints}, hints)
        self.check()


Entry = TypeVar("Entry", bound=FlatRecord)


def name_of(registry: Registry[type[Entry]], choice: Entry) -> str:
    """The name that a choice's class is registered under; raises ConfigurationError where it is not."""
    for name, entry in registry.items():
        if entry is type(choice):
            return name
    raise ConfigurationError(
        f"{type(choice).__name__} is not registered, so a saved model could not find it again: put the registry's "
        f"decorator for a {registry.kind}, @….register(name), before the class."
    )


def record_of(registry: Registry[type[Entry]], choice: Entry) -> Record:
    """A choice and its settings as JSON values."""
    return {"kind": name_of(registry, choice), **asdict(choice)}


def from_record(registry: Registry[type[Entry]], record: Mapping[str, Any]) -> Entry:
    """What record_of described. Raises DamagedFileError for what it cannot have written."""
    values = {name: value for name, value in record.items() if name != "kind"}
    if record.get("kind") not in registry:
        raise DamagedFileError(
            f"a {registry.kind} of kind {record.get('kind')!r} is described; known: {', '.join(registry)}."
        )
    try:
        return registry[record["kind"]](**values)
    except TypeError as error:
        raise DamagedFileError(
            f"the {registry.kind} {record['kind']!r} is described with other settings: {error}."
        ) from error
