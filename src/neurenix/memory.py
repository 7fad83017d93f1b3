"""Memory of the C library that stays in the process while one call computes."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Iterator

# parameters of mallopt, malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_DEFAULT_MMAP_MAX = 65_536
_LARGEST_DYNAMIC_THRESHOLD = 32 << 20
_CHOICES = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")

_lock = threading.Lock()
_users = 0


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Inside the block, memory that was freed is used again rather than given back to the system.

    glibc gives each large tensor pages of its own and returns them when it is freed; taking them back costs a fault
    and a page of zeros for every 4 KiB, a third of a training step through large maps. Blocks may be nested and may
    overlap in several threads; the last one to end gives back what is free.

    glibc cannot be asked for its thresholds, so they are not put back but set to where its own rule ends in a process
    with large tensors: blocks of 32 MiB and more are mapped, 64 MiB may stay free at the heap's end (man 3 mallopt).
    Nothing is done where there is no glibc, or the user chose (MALLOC_… or GLIBC_TUNABLES in the environment).
    """
    global _users
    library = _glibc()
    if library is None or _is_chosen():
        yield
        return
    with _lock:
        if _users == 0:
            library.mallopt(_MMAP_MAX, 0)
            library.mallopt(_TRIM_THRESHOLD, -1)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                library.mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)
                library.mallopt(_MMAP_THRESHOLD, _LARGEST_DYNAMIC_THRESHOLD)
                library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_DYNAMIC_THRESHOLD)
                library.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is glibc."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - which other libraries lack
    except (OSError, TypeError, AttributeError):
        return None
    library.malloc_trim.argtypes = [ctypes.c_size_t]
    return library


def _is_chosen() -> bool:
    return any(name in os.environ for name in _CHOICES) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
