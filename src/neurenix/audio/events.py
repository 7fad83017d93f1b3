"""Music as a sequence of events: notes begin and end, time passes, the strength of what follows changes.

Oore et al., This Time with Feeling: Learning Expressive Musical Performance, Neural Computing and Applications 2018,
section 3; the numbers are those of the checkpoints that read them.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

from ..errors import ConfigurationError, InputMismatchError

STEPS_PER_SECOND = 100  # one step is 10 ms
LONGEST_SHIFT = 100  # steps of one event
VELOCITY_BINS, VELOCITIES_PER_BIN = 32, 4
_DEFAULT_VELOCITY = 64


@final
@dataclass(frozen=True, kw_only=True)
class Note:
    """One note. start, end: seconds. pitch: 0 to 127, 60 is the middle C. velocity: 1 to 127."""

    start: float
    end: float
    pitch: int
    velocity: int


@final
@dataclass(frozen=True, kw_only=True)
class EventVocabulary:
    """The numbers of events: NOTE_ON and NOTE_OFF of each pitch, TIME_SHIFT of 1 to 100 steps, VELOCITY of 32 bins.

    lowest, highest: pitches that have events; notes outside are left out.
    first: number of the first event; the others follow in the order above.
    pad, end: numbers that fill up a batch, and that end a piece.
    start: number that stands before each piece; None where a piece begins with its first event.
    lowest_velocity: the softest one of the first bin.
    repeats_velocity: a VELOCITY stands before every note, and not before those alone that differ from the last one.
    """

    lowest: int
    highest: int
    first: int
    pad: int
    end: int
    start: int | None = None
    lowest_velocity: int = 1
    repeats_velocity: bool = False

    @property
    def size(self) -> int:
        """Number of events with those that are no music."""
        return max(self._velocities + VELOCITY_BINS, self.pad + 1, self.end + 1)

    @property
    def _pitches(self) -> int:
        return self.highest - self.lowest + 1

    @property
    def _note_offs(self) -> int:
        return self.first + self._pitches

    @property
    def _time_shifts(self) -> int:
        return self._note_offs + self._pitches

    @property
    def _velocities(self) -> int:
        return self._time_shifts + LONGEST_SHIFT

    def encode(self, notes: Iterable[Note]) -> list[int]:
        """The events of some notes, in time; without start and end."""
        kept = [note for note in notes if self.lowest <= note.pitch <= self.highest]
        kept.sort(key=lambda note: (note.start, note.pitch))
        events: list[int] = []
        now, last_bin = 0, -1
        for step, number, ends in _changes(kept):
            events += self._shifts(step - now)
            now, note = step, kept[number]
            if ends:
                events.append(self._note_offs + note.pitch - self.lowest)
                continue
            velocity_bin = (max(note.velocity, 1) - self.lowest_velocity) // VELOCITIES_PER_BIN
            if velocity_bin != last_bin or self.repeats_velocity:
                events.append(self._velocities + velocity_bin)
                last_bin = velocity_bin
            events.append(self.first + note.pitch - self.lowest)
        return events

    def decode(self, events: Sequence[int]) -> list[Note]:
        """The notes of some events, in the order of their starts.

        What is no music is passed over, and so are ends of notes that did not begin and notes without length, which a
        model may well sample. Notes that do not end last as long as the piece.

        Raises InputMismatchError for numbers that are no events of this vocabulary.
        """
        sounding: dict[int, deque[tuple[int, int]]] = defaultdict(deque)
        notes: list[Note] = []
        now, velocity = 0, _DEFAULT_VELOCITY
        for event in events:
            kind, value = self.meaning(event)
            if kind == "time_shift":
                now += value
            elif kind == "velocity":
                velocity = value
            elif kind == "note_on":
                sounding[value].append((now, velocity))
            elif kind == "note_off" and sounding[value]:
                notes += _note(value, *sounding[value].popleft(), now)
        for pitch, begun in sounding.items():
            for start, strength in begun:
                notes += _note(pitch, start, strength, now)
        return sorted(notes, key=lambda note: (note.start, note.pitch))

    def meaning(self, event: int) -> tuple[str, int]:
        """("note_on" | "note_off", pitch), ("time_shift", steps), ("velocity", of MIDI), or ("none", event).

        Raises InputMismatchError for a number that is none of this vocabulary.
        """
        if not 0 <= event < self.size:
            raise InputMismatchError(f"{event} is no event; they go from 0 to {self.size - 1} in this vocabulary.")
        if event in (self.pad, self.end, self.start) or event < self.first:
            return "none", event
        if event < self._time_shifts:
            place = event - self.first
            return "note_on" if event < self._note_offs else "note_off", self.lowest + place % self._pitches
        if event < self._velocities:
            return "time_shift", event - self._time_shifts + 1
        return "velocity", max(1, self.lowest_velocity + VELOCITIES_PER_BIN * (event - self._velocities))

    def _shifts(self, steps: int) -> list[int]:
        whole, rest = divmod(steps, LONGEST_SHIFT)
        return [self._velocities - 1] * whole + [self._time_shifts + rest - 1] * bool(rest)


# Magenta's Music Transformer: the piano's 88 keys. A piece is shifted right by one place that is empty, as padding is.
PIANO_EVENTS = EventVocabulary(lowest=21, highest=108, first=2, pad=0, end=1, start=0)
# The midi-neural-processor, which the repository MusicTransformer-Pytorch reads its data with.
FULL_RANGE_EVENTS = EventVocabulary(
    lowest=0, highest=127, first=0, pad=389, end=388, lowest_velocity=0, repeats_velocity=True
)
_VOCABULARIES = {vocabulary.size: vocabulary for vocabulary in (PIANO_EVENTS, FULL_RANGE_EVENTS)}


def vocabulary_of_size(size: int) -> EventVocabulary:
    """The vocabulary with so many events. Raises ConfigurationError where none is known."""
    if size not in _VOCABULARIES:
        raise ConfigurationError(
            f"no vocabulary of {size} events is known; there are those of {' and '.join(map(str, _VOCABULARIES))}."
        )
    return _VOCABULARIES[size]


def _changes(notes: Sequence[Note]) -> Iterator[tuple[int, int, bool]]:
    """(step, number of the note, whether it ends), in time; a note lasts one step at least."""
    changes = []
    for number, note in enumerate(notes):
        start = int(note.start * STEPS_PER_SECOND + 0.5)
        changes.append((start, number, False))
        changes.append((max(int(note.end * STEPS_PER_SECOND + 0.5), start + 1), number, True))
    yield from sorted(changes)


def _note(pitch: int, start: int, velocity: int, end: int) -> list[Note]:
    if end <= start:
        return []
    return [Note(start=start / STEPS_PER_SECOND, end=end / STEPS_PER_SECOND, pitch=pitch, velocity=velocity)]
