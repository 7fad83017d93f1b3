"""Music: MIDI files as notes and as events, and what weights expect of them."""

from __future__ import annotations

from ._midi_input import MidiInput as MidiInput
from .events import FULL_RANGE_EVENTS as FULL_RANGE_EVENTS
from .events import PIANO_EVENTS as PIANO_EVENTS
from .events import EventVocabulary as EventVocabulary
from .events import Note as Note
from .midi import read_midi as read_midi
from .midi import write_midi as write_midi
from .midi_preprocess import MidiDataset as MidiDataset
from .midi_preprocess import MidiPreprocess as MidiPreprocess

__all__ = [
    "FULL_RANGE_EVENTS",
    "PIANO_EVENTS",
    "EventVocabulary",
    "MidiDataset",
    "MidiInput",
    "MidiPreprocess",
    "Note",
    "read_midi",
    "write_midi",
]
