"""Torch files that hold more than tensors, read without any of it: records that only note stand in for foreign classes.

torch.load(weights_only=True) refuses such files, and its reader runs nothing that is not on its list. Here the names
that a caller knows are on it, each with a record in its place, so no foreign module is imported and none is called.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import torch

from ...errors import DamagedFileError, NeurenixError, UnsafeFileError
from ...tensor_files import check_torch_archive


@final
class Noted:
    """Whatever it is made with and told, it keeps; it stands for an object of a foreign class, or for the class."""

    def __init__(self, *given: Any) -> None:
        self.given: tuple[Any, ...] = given
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


def load_with_stand_ins(
    path: Path, stand_in: Callable[[str], Any], opened: Callable[[Any], Any] = lambda content: content
) -> Any:
    """What a torch file holds, with records in the place of foreign objects.

    stand_in: a dotted name that torch does not read by itself -> what is called in its place; None to refuse it.
    opened: what is made of the content, which may be of any shape; what it raises means a damaged file.
    Raises UnsafeFileError for a file that names anything else, DamagedFileError for one that is not whole.
    """
    content = path.read_bytes()
    check_torch_archive(content, str(path))
    try:
        names = _foreign_names(content)
        found = {name: stand_in(name) for name in names}
        _refuse(path, sorted(name for name, standing in found.items() if standing is None))
        with torch.serialization.safe_globals([(standing, name) for name, standing in found.items()]):
            return opened(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except NeurenixError:
        raise
    except Exception as error:  # the parser of a damaged file may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        if "GLOBAL" in str(error) or "Unsupported" in str(error) or "allowlisted" in str(error):
            raise UnsafeFileError(
                f"{path} holds more than tensors and plain values: {reason}; it is refused."
            ) from None
        raise DamagedFileError(f"{path} is not a whole torch file ({reason}); fetch or save it again.") from None


def _foreign_names(content: bytes) -> list[str]:
    """The names in a file that torch does not read by itself; files from before torch 1.6 do not tell."""
    if not content.startswith(b"PK"):
        return []
    return torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(content))


def _refuse(path: Path, names: list[str]) -> None:
    if names:
        raise UnsafeFileError(
            f"{path} names {', '.join(names[:3])}, which would have to be run to be read, so it is refused. Save its "
            "state dict as safetensors where you trust it, and load that."
        )
