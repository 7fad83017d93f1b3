"""Sounds and music: what weights expect of them, waveforms, MIDI files as notes and as events."""

from __future__ import annotations

from ._audio_input import AudioInput as AudioInput
from ._mel_image_input import MelImageInput as MelImageInput
from ._midi_input import MidiInput as MidiInput
from .alphabet import Alphabet as Alphabet
from .ctc import Transcript as Transcript
from .ctc import beam_decode as beam_decode
from .ctc import greedy_decode as greedy_decode
from .events import FULL_RANGE_EVENTS as FULL_RANGE_EVENTS
from .events import PIANO_EVENTS as PIANO_EVENTS
from .events import EventVocabulary as EventVocabulary
from .events import Note as Note
from .mel_image import MelImagePreprocess as MelImagePreprocess
from .midi import read_midi as read_midi
from .midi import write_midi as write_midi
from .midi_preprocess import MidiDataset as MidiDataset
from .midi_preprocess import MidiPreprocess as MidiPreprocess
from .preprocess import AUGMENTATIONS as AUGMENTATIONS
from .preprocess import AudioPreprocess as AudioPreprocess
from .preprocess import WaveformDataset as WaveformDataset
from .spec_augment import SpecAugment as SpecAugment

__all__ = [
    "AUGMENTATIONS",
    "FULL_RANGE_EVENTS",
    "PIANO_EVENTS",
    "Alphabet",
    "AudioInput",
    "AudioPreprocess",
    "EventVocabulary",
    "MelImageInput",
    "MelImagePreprocess",
    "MidiDataset",
    "MidiInput",
    "MidiPreprocess",
    "Note",
    "SpecAugment",
    "Transcript",
    "WaveformDataset",
    "beam_decode",
    "greedy_decode",
    "read_midi",
    "write_midi",
]
