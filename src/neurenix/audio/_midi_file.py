"""The bytes of Standard MIDI files: chunks, numbers of variable length, running status, the tempo map.

Standard MIDI Files Specification 1.0 (1996). Files come from anywhere, so every length in them is compared with what is
there, and time has an end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from ..errors import UnreadableSampleError

LONGEST_PIECE = 86_400.0  # seconds; a few bytes could otherwise ask for centuries, and one event per second of them
_DATA_BYTES = {0x80: 2, 0x90: 2, 0xA0: 2, 0xB0: 2, 0xC0: 1, 0xD0: 1, 0xE0: 2}
_META, _SYSTEM_EXCLUSIVE = 0xFF, (0xF0, 0xF7)
_TEMPO, _END_OF_TRACK = 0x51, 0x2F
_FIRST_TEMPO = 500_000  # microseconds per quarter note, until the file says another: 120 in a minute
_FRAMES = {24: 24.0, 25: 25.0, 29: 30_000 / 1001, 30: 30.0}  # per second


@final
@dataclass(frozen=True)
class Message:
    """What is said to a channel. seconds: since the start. status: kind and channel. first, second: its data."""

    seconds: float
    status: int
    first: int
    second: int

    @property
    def kind(self) -> int:
        """0x80 a note ends, 0x90 a note begins, 0xB0 a control moves, …"""
        return self.status & 0xF0

    @property
    def channel(self) -> int:
        """0 to 15."""
        return self.status & 0x0F


def read_messages(content: bytes, name: str) -> list[Message]:
    """The channel messages of a file of format 0 or 1, all tracks together in time.

    Raises UnreadableSampleError, naming the file, for anything that is not a whole file of these formats.
    """
    division, tracks = _chunks(content, name)
    raw = [message for track in tracks for message in _track(track, name)]
    raw.sort(key=lambda message: message[0])  # stable: in one tick, the order of the file
    clock = _Clock(division, [(tick, _tempo(data, name)) for tick, status, data in raw if status == _META], name)
    found = []
    for tick, status, data in raw:
        if status != _META:
            seconds = clock.seconds(tick)
            if seconds > LONGEST_PIECE:
                raise unreadable(
                    name, f"it lasts {seconds:,.0f} seconds, and no piece of music lasts longer than a day"
                )
            found.append(Message(seconds, status, data[0], data[1] if len(data) > 1 else 0))
    return found


def write_number(value: int) -> bytes:
    """A whole number in groups of seven bits, highest first."""
    groups = [value & 127]
    while value := value >> 7:
        groups.append(value & 127 | 128)
    return bytes(reversed(groups))


def unreadable(name: str, reason: str) -> UnreadableSampleError:
    """The error for a file that cannot be read."""
    return UnreadableSampleError(f"{name} is no MIDI file that can be read: {reason}.")


@final
class _Clock:
    """Ticks to seconds. division: ticks per quarter note, or with its highest bit set frames and ticks per frame."""

    def __init__(self, division: int, tempos: list[tuple[int, int]], name: str) -> None:
        frames = 256 - (division >> 8) if division & 0x8000 else None
        ticks = 1e6 * division if frames is None else _FRAMES.get(frames, 0.0) * (division & 0xFF)
        if not ticks:
            raise unreadable(name, f"it divides time by {division:#06x}, which is no division")
        self._unit = ticks  # a tick lasts a tempo of microseconds divided by it, a frame's tick one second
        self._ticks, self._starts, self._tempos = [0], [0.0], [_FIRST_TEMPO if frames is None else 1]
        for tick, tempo in tempos if frames is None else []:
            self._starts.append(self.seconds(tick))
            self._ticks.append(tick)
            self._tempos.append(tempo)

    def seconds(self, tick: int) -> float:
        """Time since the start."""
        place = bisect_right(self._ticks, tick) - 1
        return self._starts[place] + (tick - self._ticks[place]) * self._tempos[place] / self._unit


def _chunks(content: bytes, name: str) -> tuple[int, list[bytes]]:
    """The division of time, and the tracks."""
    if content[:4] != b"MThd":
        raise unreadable(name, "it does not begin with MThd")
    header, place = _chunk(content, 0, name)
    if len(header) < 6:
        raise unreadable(name, f"its header has {len(header)} bytes, and 6 are needed")
    form, count, division = (int.from_bytes(header[start : start + 2], "big") for start in (0, 2, 4))
    if form > 1:
        raise unreadable(name, f"it is of format {form}, whose tracks do not sound together; 0 and 1 can be read")
    tracks: list[bytes] = []
    while len(tracks) < count:
        if place >= len(content):
            raise unreadable(name, f"{count} tracks are declared, and {len(tracks)} are there")
        kind = content[place : place + 4]
        body, place = _chunk(content, place, name)
        if kind == b"MTrk":  # the specification asks to pass over any other
            tracks.append(body)
    return division, tracks


def _chunk(content: bytes, place: int, name: str) -> tuple[bytes, int]:
    size = int.from_bytes(content[place + 4 : place + 8], "big")
    body, end = _take(content, place + 8, size, name)
    return body, end


def _track(track: bytes, name: str) -> Iterator[tuple[int, int, bytes]]:
    """(tick, status, data) of channel messages and of changes of the tempo."""
    place = tick = running = 0
    while place < len(track):
        delta, place = _number(track, place, name)
        tick += delta
        (status,), after = _take(track, place, 1, name)
        if status == _META or status in _SYSTEM_EXCLUSIVE:
            kind, data, place = _long_message(track, after, status, name)
            running = 0
            if kind == _END_OF_TRACK:
                return
            if kind == _TEMPO:
                yield tick, status, data
            continue
        status, place = (status, after) if status & 0x80 else (running, place)
        data, place = _take(track, place, _data_bytes(status, name), name)
        if max(data) > 127:
            raise unreadable(name, f"a message begins within another one in tick {tick}")
        running = status
        yield tick, status, data


def _long_message(track: bytes, place: int, status: int, name: str) -> tuple[int, bytes, int]:
    """(kind of a meta message or -1, data, place behind it)."""
    kind = -1
    if status == _META:
        (kind,), place = _take(track, place, 1, name)
    size, place = _number(track, place, name)
    data, place = _take(track, place, size, name)
    return kind, data, place


def _data_bytes(status: int, name: str) -> int:
    if status & 0xF0 not in _DATA_BYTES:
        raise unreadable(name, f"a message with the status {status:#04x} stands in it, which no file may hold")
    return _DATA_BYTES[status & 0xF0]


def _number(data: bytes, place: int, name: str) -> tuple[int, int]:
    value = 0
    for count, octet in enumerate(data[place : place + 4]):
        value = value << 7 | octet & 127
        if octet < 128:
            return value, place + count + 1
    raise unreadable(name, "a number in it has no end within four bytes")


def _take(data: bytes, place: int, size: int, name: str) -> tuple[bytes, int]:
    """The next bytes and the place behind them."""
    if place + size > len(data):
        raise unreadable(name, f"it ends within {size} bytes that are declared, and is not whole")
    return data[place : place + size], place + size


def _tempo(data: bytes, name: str) -> int:
    """Microseconds per quarter note."""
    tempo = int.from_bytes(data, "big")
    if len(data) != 3 or not tempo:
        raise unreadable(name, f"a tempo of it is {data[:8].hex()}, and has to be three bytes above 0")
    return tempo
