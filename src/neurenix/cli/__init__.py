"""The command line: `neurenix COMMAND`.

Each command is a module with `parser()` and `run(arguments)`, which may return an exit code; it is imported when its
name is given, so that `neurenix --help` answers at once.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence

from .._version import __version__
from ..errors import (
    DamagedFileError,
    DiskFullError,
    NeurenixError,
    NeurenixWarning,
    TrainingError,
    UnknownNameError,
    UnsafeFileError,
    WeightsNotFoundError,
)

COMMANDS = {
    "fit": "fine-tune a pretrained model on your data",
    "resume": "go on with a fit that was interrupted",
    "evaluate": "measure a tuned model on labelled data",
    "predict": "ask a tuned model about files or texts",
    "extract": "features of your data, as a safetensors file",
    "verify": "are these files whole? weights, models, runs, caches, data, the hub's downloads",
    "fetch": "download weights once, pinned and hashed, to work offline",
    "models": "list the pretrained models",
    "doctor": "what this machine can do, and how long a fit would take",
}
OK, UNEXPECTED, WRONG_USE, DAMAGED, TRAINING_FAILED, NO_WEIGHTS, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
EXIT_CODES = {
    OK: "done",
    UNEXPECTED: "an unexpected error",
    WRONG_USE: "wrong use, or data that cannot be used",
    DAMAGED: "a damaged or unsafe file",
    TRAINING_FAILED: "training failed (NaN, memory, a full disk)",
    NO_WEIGHTS: "weights were not found",
    INTERRUPTED: "interrupted (143: terminated)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code, see EXIT_CODES."""
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except NeurenixError as error:
        print(f"neurenix: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print("neurenix: interrupted.", file=sys.stderr)
        return INTERRUPTED


def exit_code(error: NeurenixError) -> int:
    """The exit code for an error that was raised on purpose."""
    if isinstance(error, (DamagedFileError, UnsafeFileError)):
        return DAMAGED
    if isinstance(error, (TrainingError, DiskFullError)):
        return TRAINING_FAILED
    return NO_WEIGHTS if isinstance(error, WeightsNotFoundError) else WRONG_USE


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
        answer = command.run(parsed)
    return OK if answer is None else int(answer)


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
        "",
        "exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()),
    ]
    return "\n".join(lines)
