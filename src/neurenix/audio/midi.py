"""Notes out of MIDI files and into them, with what the sustain pedal does to them."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from ..errors import ConfigurationError, UnreadableSampleError
from ._midi_file import LONGEST_PIECE, Message, read_messages, write_number
from .events import Note

MidiSource: TypeAlias = "str | os.PathLike[str] | bytes"
_LARGEST_FILE = 1 << 25  # bytes; a day of music with ten notes in a second has about seven millions
_NOTE_OFF, _NOTE_ON, _CONTROL = 0x80, 0x90, 0xB0
_SUSTAIN, _DRUMS = 64, 9  # number of the pedal's control; the tenth channel
_TICKS_PER_QUARTER, _MICROSECONDS_PER_QUARTER = 500, 500_000  # of what is written: a tick is a millisecond


def read_midi(source: MidiSource, *, sustain: bool = True) -> list[Note]:
    """The notes of a MIDI file, all instruments but drums together, in the order of their starts.

    source: a path, or the content of a file.
    sustain: notes that end while the pedal of their channel is down sound until it is up, or until the same key is
        struck again, as in the data of Oore et al. 2018. Notes that never end last as long as the piece.

    Raises UnreadableSampleError, naming the file, where it is no whole MIDI file of format 0 or 1.
    """
    content, name = _content(source)
    messages = [message for message in read_messages(content, name) if message.channel != _DRUMS]
    end = max((message.seconds for message in messages), default=0.0)
    notes: list[Note] = []
    for channel in sorted({message.channel for message in messages}):
        own = [message for message in messages if message.channel == channel]
        played = _notes(own, end)
        notes += _sustained(played, _pedal(own, end)) if sustain else played
    return sorted(notes, key=lambda note: (note.start, note.pitch))


def write_midi(notes: Iterable[Note], program: int = 0) -> bytes:
    """The content of a MIDI file of format 0 with these notes, to the millisecond. program: the instrument, 0 a piano.

    Raises ConfigurationError for notes that no MIDI file can hold.
    """
    if not 0 <= program <= 127:
        raise ConfigurationError(f"program={program}; instruments have the numbers 0 to 127.")
    timed: list[tuple[int, int, bytes]] = []
    for note in notes:
        _check(note)
        start = round(note.start * 1000)
        # in one tick ends come before starts, so that a key can be struck again
        timed.append((start, 1, bytes([_NOTE_ON, note.pitch, note.velocity])))
        timed.append((max(round(note.end * 1000), start + 1), 0, bytes([_NOTE_OFF, note.pitch, 0])))
    track = b"\x00\xff\x51\x03" + _MICROSECONDS_PER_QUARTER.to_bytes(3, "big") + bytes([0, 0xC0, program])
    now = 0
    for tick, _, message in sorted(timed):
        track += write_number(tick - now) + message
        now = tick
    track += b"\x00\xff\x2f\x00"
    header = b"".join(number.to_bytes(2, "big") for number in (0, 1, _TICKS_PER_QUARTER))
    return b"MThd" + len(header).to_bytes(4, "big") + header + b"MTrk" + len(track).to_bytes(4, "big") + track


def name_of(source: MidiSource) -> str:
    """What messages call a MIDI file."""
    return f"{len(source)} bytes" if isinstance(source, bytes) else os.fspath(source)


def _content(source: MidiSource) -> tuple[bytes, str]:
    name = name_of(source)
    try:
        size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
        if size > _LARGEST_FILE:
            raise UnreadableSampleError(f"{name} has {size:,} bytes, and no piece of music needs {_LARGEST_FILE:,}.")
        return (source if isinstance(source, bytes) else Path(source).read_bytes()), name
    except OSError as error:
        raise UnreadableSampleError(f"{name} cannot be read: {error.strerror or error}.") from error


def _notes(messages: Sequence[Message], end: float) -> list[Note]:
    """The notes of one channel as its keys were held; the key that was struck first is let go first."""
    sounding: dict[int, deque[Note]] = defaultdict(deque)
    notes: list[Note] = []
    for message in messages:
        begins = message.kind == _NOTE_ON and message.second > 0
        if begins:
            note = Note(start=message.seconds, end=end, pitch=message.first, velocity=message.second)
            sounding[note.pitch].append(note)
        elif message.kind in (_NOTE_ON, _NOTE_OFF) and sounding[message.first]:
            notes.append(replace(sounding[message.first].popleft(), end=message.seconds))
    return [*notes, *(note for begun in sounding.values() for note in begun)]


def _pedal(messages: Sequence[Message], end: float) -> list[tuple[float, float]]:
    """When the pedal was down: (from, to) in seconds, one after another."""
    periods: list[tuple[float, float]] = []
    down: float | None = None
    for message in messages:
        if message.kind != _CONTROL or message.first != _SUSTAIN:
            continue
        if message.second >= 64 and down is None:
            down = message.seconds
        elif message.second < 64 and down is not None:
            periods.append((down, message.seconds))
            down = None
    return periods if down is None else [*periods, (down, end)]


def _sustained(notes: Sequence[Note], periods: Sequence[tuple[float, float]]) -> list[Note]:
    starts: dict[int, list[float]] = defaultdict(list)
    for note in sorted(notes, key=lambda note: note.start):
        starts[note.pitch].append(note.start)
    downs = [down for down, _ in periods]
    return [_sustained_one(note, periods, downs, starts) for note in notes]


def _sustained_one(
    note: Note,
    periods: Sequence[tuple[float, float]],
    downs: Sequence[float],
    starts: Mapping[int, Sequence[float]],
) -> Note:
    place = bisect_right(downs, note.end) - 1
    if place < 0 or note.end >= periods[place][1]:
        return note
    again = bisect_right(starts[note.pitch], note.start)
    struck = [start for start in starts[note.pitch][again : again + 1] if start >= note.end]
    return replace(note, end=min([periods[place][1], *struck]))


def _check(note: Note) -> None:
    in_time = 0 <= note.start <= note.end <= LONGEST_PIECE
    if not in_time or not 0 <= note.pitch <= 127 or not 1 <= note.velocity <= 127:
        raise ConfigurationError(
            f"{note} cannot be written: times are seconds within a day, pitches 0 to 127 and velocities 1 to 127."
        )
