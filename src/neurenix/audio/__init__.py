"""Sounds and music: what weights expect of them, waveforms, MIDI files as notes and as events."""

from __future__ import annotations

from ._audio_input import AudioInput as AudioInput
from ._midi_input import MidiInput as MidiInput
from .events import FULL_RANGE_EVENTS as FULL_RANGE_EVENTS
from .events import PIANO_EVENTS as PIANO_EVENTS
from .events import EventVocabulary as EventVocabulary
from .events import Note as Note
from .midi import read_midi as read_midi
from .midi import write_midi as write_midi
from .midi_preprocess import MidiDataset as MidiDataset
from .midi_preprocess import MidiPreprocess as MidiPreprocess
from .preprocess import AUGMENTATIONS as AUGMENTATIONS
from .preprocess import AudioPreprocess as AudioPreprocess
from .preprocess import WaveformDataset as WaveformDataset

__all__ = [
    "AUGMENTATIONS",
    "FULL_RANGE_EVENTS",
    "PIANO_EVENTS",
    "AudioInput",
    "AudioPreprocess",
    "EventVocabulary",
    "MidiDataset",
    "MidiInput",
    "MidiPreprocess",
    "Note",
    "WaveformDataset",
    "read_midi",
    "write_midi",
]
