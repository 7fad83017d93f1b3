"""A file of vectors, read once from start to end: plain or packed with gzip, never more than it can honestly hold."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from types import TracebackType
from typing import final

from ...errors import DamagedFileError, UnsafeFileError

_BLOCK = 1 << 20
_LARGEST_RATIO = 50  # unpacked to packed, beyond the first 64 MiB; vectors as text reach 3
_FREE_BYTES = 64 << 20
_GZIP = b"\x1f\x8b"


@final
class VectorStream:
    """The bytes of a file in order. Used with `with`.

    Raises DamagedFileError where the file ends too early or is no whole gzip file, UnsafeFileError where it unpacks to
    far more than it weighs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = path.stat().st_size
        self._buffer, self._start, self._unpacked = b"", 0, 0
        with path.open("rb") as file:
            self.packed = file.read(len(_GZIP)) == _GZIP
        self._source = gzip.open(path) if self.packed else path.open("rb")
        self._most = _FREE_BYTES + _LARGEST_RATIO * self._size if self.packed else self._size

    def __enter__(self) -> VectorStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    def promise(self, size: int, what: str) -> None:
        """Raise when the file cannot hold so many bytes more, before memory is taken for them."""
        if self._unpacked - len(self._buffer) + self._start + size > self._most:
            packed = ", packed" if self.packed else ""
            raise self.damaged(f"it declares {what}, at least {size:,} bytes, and has {self._size:,}{packed}")

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        self._fill(count)
        found = self._buffer[self._start : self._start + count]
        if len(found) < count:
            raise self.damaged("it ends too early")
        self._start += count
        return found

    def until(self, mark: bytes, most: int, what: str) -> bytes:
        """The next bytes up to `mark`, which is passed over. most: bytes that `what` may have."""
        place = self._buffer.find(mark, self._start, self._start + most + 1)
        if place < 0:
            self._fill(most + 1)
            place = self._buffer.find(mark, self._start, self._start + most + 1)
        if place < 0:
            ends = len(self._buffer) - self._start <= most
            raise self.damaged("it ends too early" if ends else f"{what} has more than {most} bytes")
        found = self._buffer[self._start : place]
        self._start = place + 1
        return found

    def line(self, most: int, what: str) -> bytes | None:
        """The next line without its end, at most `most` bytes long; None behind the last one.

        The tools end every line, so that a line without an end was cut.
        """
        place = self._buffer.find(b"\n", self._start, self._start + most + 1)
        if place >= 0 or b"\n" in self.peek(most + 1):
            return self.until(b"\n", most, what)
        rest = len(self.peek(most + 1))
        if rest:
            reason = (
                f"{what} has more than {most:,} bytes" if rest > most else f"{what} has no end, so something is lost"
            )
            raise self.damaged(reason)
        return None

    def peek(self, count: int) -> bytes:
        """Up to `count` of the next bytes, which stay where they are."""
        if len(self._buffer) - self._start < count:
            self._fill(count)
        return self._buffer[self._start : self._start + count]

    def skip(self, count: int) -> None:
        """Pass over the next `count` bytes."""
        while count > 0:
            count -= len(self.take(min(count, _BLOCK)))

    def end(self, what: str) -> None:
        """Raise unless nothing but line ends follows."""
        while rest := self.peek(_BLOCK):
            if rest.strip(b"\r\n"):
                raise self.damaged(f"it has more behind {what}")
            self._start += len(rest)

    def damaged(self, reason: str) -> DamagedFileError:
        """The error for what is no whole file of vectors."""
        return DamagedFileError(f"{self.path} is not a whole file of word vectors: {reason}. Fetch or write it again.")

    def _fill(self, count: int) -> None:
        """Have `count` bytes at hand, or all that there are."""
        if len(self._buffer) - self._start >= count:
            return
        blocks = [self._buffer[self._start :]]
        found = len(blocks[0])
        while found < count and (block := self._read(max(_BLOCK, count - found))):
            blocks.append(block)
            found += len(block)
        self._buffer, self._start = b"".join(blocks), 0

    def _read(self, count: int) -> bytes:
        try:
            block = self._source.read(count)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self.damaged(f"it is no whole gzip file ({error})") from error
        self._unpacked += len(block)
        if self._unpacked > self._most:
            raise UnsafeFileError(
                f"{self.path} unpacks to {self._unpacked:,} bytes or more from {self._size:,}; so much is no table of "
                "vectors but a way to fill memory. Unpack it yourself if you know it."
            )
        return block
