"""Sizes from a stranger's file: looked at before a network is built after them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from ..errors import DamagedFileError, NeurenixError, UnsafeFileError, WeightsMismatchError
from ._records import Architecture, BuildOptions, Parts, StateDict

_FREE = 1 << 24  # numbers; small networks may be larger than their file
_LARGEST_HEAD = 4  # times the file: that of a segmenter may be new, and weigh as much as the trunk


@contextlib.contextmanager
def naming(file: str) -> Iterator[None]:
    """Errors about what is in a file say which file it is, also where what raises them knows the tensors alone.

    What the conversions of names and the builders do not foresee is an error with a name too.
    """
    try:
        yield
    except (WeightsMismatchError, DamagedFileError, UnsafeFileError) as error:
        if file in str(error) or str(Path(file).parent) in str(error):
            raise
        raise type(error)(f"{file}: {error}") from error
    except (NeurenixError, MemoryError, OSError):
        raise
    except Exception as error:
        raise WeightsMismatchError(
            f"What is in {file}, or beside it, cannot be of this architecture ({type(error).__name__}: "
            f"{str(error)[:200]}). Load it under the name of its own architecture."
        ) from error


def sketch(architecture: Architecture, options: BuildOptions, minimum: float, file: str) -> Parts:
    """The network on the meta device, for its names and shapes; one far larger than what its file holds is refused.

    Its sizes may be those of the file's own tensors, or of a config.json beside it; without numbers that fill it, both
    are only claims, and no memory is taken for them. minimum: least share of the trunk that the file has to bring.
    """
    held = sum(tensor.numel() for tensor in (options.state or {}).values())
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        parts = architecture.build(options)
    trunk, head = _numbers_in(parts.trunk), _numbers_in(parts.head)
    if minimum * trunk > 2 * held + _FREE:
        raise WeightsMismatchError(
            f"Only {held / trunk:.1%} of {architecture.name} would be pretrained by {file} at most, and "
            f"minimum_pretrained is {minimum:.0%}: the network would have {trunk:,} numbers, and the file holds "
            f"{held:,}. Load the file under the name of its own architecture, or lower minimum_pretrained."
        )
    if head > _LARGEST_HEAD * held + _FREE:
        raise WeightsMismatchError(
            f"{file} holds {held:,} numbers, and the head of {architecture.name} that it asks for would have {head:,}; "
            "it is no checkpoint of this network. Load it with include_top=False to leave the head out."
        )
    return parts


def check_headless(names: Sequence[str], state: StateDict) -> None:
    """Raise where a file has parts of the head, by our `names`, and none that says how many outputs it has."""
    found = [name for name in names if name.startswith("head.") and name in state]
    if found:
        raise WeightsMismatchError(
            f"the file's {found[0]} is {list(state[found[0]].shape)}, and no layer beside it tells how many outputs "
            "the head has; fetch or save the file again, or load it with include_top=False to leave its head out."
        )


def _numbers_in(module: nn.Module | None) -> int:
    return 0 if module is None else sum(tensor.numel() for tensor in (*module.parameters(), *module.buffers()))
