"""Name -> entry, with spelling tolerance, refusal of duplicates and near names on a miss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar, final

from .errors import ConfigurationError, UnknownNameError, plain_name

Entry = TypeVar("Entry")


@final
class Registry(Mapping[str, Entry], Generic[Entry]):
    """A read-only mapping that is filled by `register` when the entry's file is imported.

    Look-up ignores case, '-', '_' and spaces, so that names work as people spell them.
    """

    def __init__(self, kind: str, *, hint: str = "") -> None:
        self.kind = kind
        self._hint = hint
        self._entries: dict[str, Entry] = {}
        self._canonical: dict[str, str] = {}

    def register(self, name: str, *aliases: str) -> Callable[[Entry], Entry]:
        """Decorator: `@METRICS.register("accuracy")`."""

        def decorate(entry: Entry) -> Entry:
            self.add(name, entry, *aliases)
            return entry

        return decorate

    def add(self, name: str, entry: Entry, *aliases: str) -> None:
        """Enter `entry` under `name`; an alias finds it too but is not listed."""
        for spelling in (name, *aliases):
            plain = plain_name(spelling)
            if plain in self._canonical:
                raise ConfigurationError(
                    f"{self.kind} {spelling!r} is registered already, as {self._canonical[plain]!r}."
                )
            self._canonical[plain] = name
        self._entries[name] = entry

    def canonical(self, name: str) -> str:
        """The listed name for any accepted spelling; raises UnknownNameError with the nearest names."""
        found = self._canonical.get(plain_name(name)) if isinstance(name, str) else None
        if found is None:
            raise UnknownNameError(self.kind, name, self._entries, hint=self._hint)
        return found

    def __getitem__(self, name: str) -> Entry:
        return self._entries[self.canonical(name)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and plain_name(name) in self._canonical

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Registry({self.kind}: {', '.join(self._entries)})"
