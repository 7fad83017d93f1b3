"""Command-line options that come from signatures: one place states an argument's type, default and meaning."""

from __future__ import annotations

import collections.abc
import inspect
import json
import types
import typing
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, final

import jsonargparse

from ..errors import ConfigurationError, UnknownNameError

_INDENT = 4  # columns, of an argument's name in a docstring


@final
class Options:
    """A parser whose options are the arguments of functions and classes.

    Flags may be written with '-' or '_'. Options that take several values take them with spaces or commas between.
    """

    def __init__(self, command: str, summary: str, example: str) -> None:
        self.parser = jsonargparse.ArgumentParser(
            prog=f"neurenix {command}",
            description=summary,
            epilog=f"example: {example}",
            exit_on_error=False,
            allow_abbrev=False,
        )
        self._command = command
        self._several: set[str] = set()

    def add(self, title: str, source: Callable[..., Any], skip: Collection[str] = ()) -> None:
        """Add the arguments of a function, a class or a method (`Class.method`) under a heading of the help."""
        group = self.parser.add_argument_group(title)
        words = described(source)
        if inspect.isclass(source):
            group.add_class_arguments(source, skip=set(skip), as_group=False)
            source = source.__init__
        elif "self" in inspect.signature(source).parameters:
            owner = getattr(inspect.getmodule(source), source.__qualname__.split(".")[0])
            group.add_method_arguments(owner, source.__name__, skip=set(skip), as_group=False)
        else:
            group.add_function_arguments(source, skip=set(skip), as_group=False)
        for action in self.parser._actions:
            if action.dest in words and action.dest not in skip:
                action.help = words[action.dest].replace("%", "%%")
        hints = typing.get_type_hints(source)
        self._several |= {name for name, hint in hints.items() if name not in skip and _takes_several(hint)}

    def parse(self, arguments: Sequence[str]) -> jsonargparse.Namespace:
        """The options as a namespace. Raises ConfigurationError or UnknownNameError for what cannot be understood."""
        known = {flag for action in self.parser._actions for flag in action.option_strings}
        words = list(_joined(arguments, self._several))
        self._refuse_unknown([word.partition("=")[0] for word in words if word.startswith("--")], known)
        try:
            return self.parser.parse_args(words)
        except jsonargparse.ArgumentError as error:
            raise ConfigurationError(self._explained(str(error))) from error

    def _refuse_unknown(self, flags: Sequence[str], known: Collection[str]) -> None:
        for flag in flags:
            if flag not in known and flag != "--":
                hint = f"neurenix {self._command} --help lists all."
                raise UnknownNameError("option", flag, sorted(known), hint=hint)

    def _explained(self, message: str) -> str:
        text = " ".join(message.replace('Parser key "', "--").replace('":', ":").split())
        return f"{text.rstrip('.')}. See neurenix {self._command} --help."


def described(source: Callable[..., Any]) -> dict[str, str]:
    """Argument -> what its docstring's `Args:` says of it, on one line."""
    lines = (inspect.getdoc(source) or "").splitlines()
    words: dict[str, str] = {}
    name = ""
    for line in lines[lines.index("Args:") + 1 :] if "Args:" in lines else []:
        indent = len(line) - len(line.lstrip())
        if not line.strip() or not indent:
            break
        if indent == _INDENT:
            name, _, line = line.strip().partition(": ")
        words[name] = f"{words.get(name, '')} {line.strip()}".strip()
    return words


def take(arguments: jsonargparse.Namespace, source: Callable[..., Any], skip: Collection[str] = ()) -> dict[str, Any]:
    """Those of the parsed arguments that `source` has in its signature, ready to call it with."""
    names = inspect.signature(source).parameters
    return {name: arguments[name] for name in names if name in arguments and name not in skip}


def _joined(arguments: Sequence[str], several: Collection[str]) -> Iterator[str]:
    """Write flags with '_', and the values of an option that takes several as one JSON list.

    `--freeze-layers conv1 layer1` -> `--freeze_layers=["conv1", "layer1"]`
    """
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            yield word
            continue
        flag, has_value, value = word.partition("=")
        flag = "--" + flag[2:].replace("-", "_")
        if flag[2:] not in several:
            yield flag + has_value + value
            continue
        values = [value] if has_value else []
        while words and not has_value and not words[0].startswith("--"):
            values.append(words.pop(0))
        yield f"{flag}={_as_list(values)}"


def _as_list(values: Sequence[str]) -> str:
    if len(values) == 1 and (values[0].startswith("[") or values[0] in ("null", "balanced")):
        return values[0]
    parts = [part.strip() for value in values for part in value.strip("()").split(",") if part.strip()]
    return json.dumps([_number(part) for part in parts])


def _number(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (int, float)) else text


def _takes_several(hint: Any) -> bool:
    """Whether a type is a sequence of something, perhaps or None."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_takes_several(part) for part in typing.get_args(hint))
    return origin in (collections.abc.Sequence, list, tuple)
