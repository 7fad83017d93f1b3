"""The command line: `neurenix fit`, `evaluate`, `predict`, `models`.

Each command is a module with `parser()` and `run(arguments)`; it is imported when its name is given, so that
`neurenix --help` answers at once.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence

from .._version import __version__
from ..errors import NeurenixError, NeurenixWarning, UnknownNameError

COMMANDS = {
    "fit": "fine-tune a pretrained model on your data",
    "evaluate": "measure a tuned model on labelled data",
    "predict": "ask a tuned model about files or texts",
    "models": "list the pretrained models",
}
OK, WRONG_USE, INTERRUPTED = 0, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 2 wrong use or unusable data, 130 interrupted."""
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except NeurenixError as error:
        print(f"neurenix: {error}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        print("neurenix: interrupted.", file=sys.stderr)
        return INTERRUPTED


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return OK if arguments else WRONG_USE
    if arguments[0] in ("-V", "--version"):
        print(f"neurenix {__version__}")
        return OK
    if arguments[0] not in COMMANDS:
        raise UnknownNameError("command", arguments[0], COMMANDS, hint="See neurenix --help.")
    command = importlib.import_module(f"._{arguments[0]}", __name__)
    try:
        parsed = command.parser().parse(arguments[1:])
    except SystemExit as leaving:  # --help and --print_config have answered
        return int(leaving.code or OK)
    with warnings.catch_warnings():
        warnings.showwarning = _say_warning  # type: ignore[assignment]
        command.run(parsed)
    return OK


def _say_warning(message: Warning | str, category: type[Warning], *place: object) -> None:
    """A warning is one line on stderr: ours are for the user, the place in the code is not."""
    if issubclass(category, NeurenixWarning):
        print(f"neurenix: {message}", file=sys.stderr)


def _help() -> str:
    lines = [
        "usage: neurenix COMMAND [options]",
        "",
        *(f"  {name:9} {summary}" for name, summary in COMMANDS.items()),
        "",
        "neurenix COMMAND --help shows a command's options. A first run, offline, in about two minutes:",
        "",
        "  neurenix fit --data clipart --strategy lp_ft --epochs 4 --baselines random pixels",
    ]
    return "\n".join(lines)
