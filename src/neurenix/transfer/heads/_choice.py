"""The head that a tuner is asked for: a kind, its name, or its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ...errors import ConfigurationError
from ..flat_record import Record
from ._kind import HEADS, HeadKind, has_outputs, kind_from, record_of

HeadChoice: TypeAlias = HeadKind | str | Mapping[str, Any] | None


def as_given(head: Any) -> str | Record | None:
    """What a tuner was given, as JSON values: a name stays one, as its number of outputs is said elsewhere."""
    if head is None:
        return None
    if isinstance(head, str):
        return HEADS.canonical(head)
    if isinstance(head, HeadKind):
        return record_of(head)
    if isinstance(head, Mapping) and "kind" in head:
        return record_of(kind_from(head))
    raise ConfigurationError(
        f"head={head!r} is no kind of head; give a name ({', '.join(HEADS)}), or one of neurenix.transfer.heads with "
        "its settings."
    )


def chosen_class(head: str | Mapping[str, Any] | None) -> type[HeadKind] | None:
    """The kind of what as_given gave."""
    if head is None:
        return None
    return HEADS[head if isinstance(head, str) else head["kind"]]


def chosen_head(head: str | Mapping[str, Any] | None, num_classes: int | None) -> HeadKind | None:
    """The head itself; None where none was asked for, or where nobody has said how many outputs it has.

    Raises ConfigurationError for two numbers of outputs, and for one of a head that has no such number.
    """
    kind = chosen_class(head)
    if kind is None:
        return None
    if num_classes is not None and not has_outputs(kind):
        raise ConfigurationError(f"{kind.__name__} has no classes of the user's own; leave num_classes out.")
    if not isinstance(head, str):
        found = kind_from(head or {})
        stated = getattr(found, "num_outputs", None)
        if num_classes not in (None, stated):
            raise ConfigurationError(f"num_classes={num_classes}, but head has num_outputs={stated}; leave one out.")
        return found
    if not has_outputs(kind):
        return kind()
    return None if num_classes is None else kind(num_outputs=num_classes)  # type: ignore[call-arg]
