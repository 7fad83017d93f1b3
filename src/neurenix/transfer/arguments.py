"""Is an argument of the type that it has to be? Asked at the door, so that no error comes from deep within."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from ..callbacks import Callback, check_callback
from ..errors import ConfigurationError

_WORDS = {int: "a whole number", float: "a number", str: "a word", bool: "True or False", type(None): "None"}


def check_types(arguments: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """Raise ConfigurationError naming the first argument whose value is not of its type hint."""
    for name, value in arguments.items():
        hint = hints[name]
        if not _fits(value, hint):
            kind = f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"
            raise ConfigurationError(f"{name}={value!r} is {kind}; possible: {_words(hint)}.")


def plain(value: Any) -> Any:
    """NumPy's and torch's numbers and arrays as Python's, which JSON can hold; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def as_list(value: Any) -> Any:
    """One name or number as a list of one; sequences as lists; anything else as it is, for check_types to refuse."""
    value = plain(value)
    if isinstance(value, (str, int, float)):
        return [value]
    return [plain(item) for item in value] if isinstance(value, (Sequence, set)) else value


def checked_callbacks(callbacks: Any, logged: Sequence[str]) -> list[Callback]:
    """The callbacks as a list, one alone too; raises for what is none, for misspelt hooks and monitors.

    logged: names that the epochs of this fit will have.
    """
    found = [callbacks] if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable) else list(callbacks)
    for callback in found:
        if isinstance(callback, type) and issubclass(callback, Callback):
            raise ConfigurationError(
                f"callbacks holds the class {callback.__name__}; make one: {callback.__name__}(…)."
            )
        if not isinstance(callback, Callback):
            raise ConfigurationError(
                f"callbacks holds {callback!r}, which is no callback; possible: those of neurenix.callbacks, and "
                "subclasses of neurenix.callbacks.Callback."
            )
        check_callback(callback, logged)
    return found


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in inner)
    if origin is Literal:
        return True  # its values are checked, and listed, where they are used
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    if origin is not None:
        return isinstance(value, Sequence) and not isinstance(value, str) and all(_fits(x, inner[0]) for x in value)
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if hint is float else hint)


def _words(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return ", ".join(_words(part) for part in inner if part is not type(None)) + (
            " or None" if type(None) in inner else ""
        )
    if origin is not None and issubclass(origin, Mapping):
        return f"a mapping of {_words(inner[0])} to {_words(inner[1])}"
    if origin is not None:
        return "a list of " + {int: "whole numbers", float: "numbers", str: "names"}.get(inner[0], "names")
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))
