"""MIDI files: read against files written byte by byte here, refused where damaged, and to events and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from neurenix.audio import FULL_RANGE_EVENTS, PIANO_EVENTS, MidiPreprocess, Note, read_midi, write_midi
from neurenix.data import PREPROCESSES, DataLoader, as_dataset
from neurenix.errors import ConfigurationError, InputMismatchError, InputMismatchWarning, UnreadableSampleError


def header(form: int = 0, tracks: int = 1, division: int = 480) -> bytes:
    return b"MThd\x00\x00\x00\x06" + b"".join(n.to_bytes(2, "big") for n in (form, tracks, division))


def track(*parts: bytes) -> bytes:
    content = b"".join(parts)
    return b"MTrk" + len(content).to_bytes(4, "big") + content


END = b"\x00\xff\x2f\x00"


def pitches(content: bytes, **options: bool) -> list[tuple[float, float, int, int]]:
    return [(round(n.start, 6), round(n.end, 6), n.pitch, n.velocity) for n in read_midi(content, **options)]


def test_running_status_and_note_on_without_velocity() -> None:
    # 480 ticks are a quarter, half a second; 0x83 0x60 is 3 * 128 + 96 = 480
    content = header() + track(b"\x00\x90\x3c\x40", b"\x00\x40\x50", b"\x83\x60\x3c\x00", b"\x83\x60\x40\x00", END)
    assert pitches(content) == [(0, 0.5, 60, 64), (0, 1.0, 64, 80)]


def test_tempo_map_of_another_track() -> None:
    """120 in a minute for one quarter, then 60: the second quarter lasts a second."""
    tempos = track(b"\x83\x60\xff\x51\x03\x0f\x42\x40", END)
    notes = track(b"\x00\x91\x3c\x40\x83\x60\x81\x3c\x00", b"\x00\x91\x3e\x40\x83\x60\x81\x3e\x00", END)
    assert pitches(header(1, 2) + tempos + notes) == [(0, 0.5, 60, 64), (0.5, 1.5, 62, 64)]


def test_frames_in_place_of_quarters() -> None:
    """-25 frames per second of 40 ticks: one tick is a millisecond, whatever the tempo says."""
    division = (256 - 25) << 8 | 40
    content = header(0, 1, division) + track(b"\x00\xff\x51\x03\x01\x00\x00", b"\x00\x90\x3c\x40\x64\x80\x3c\x00", END)
    assert pitches(content) == [(0, 0.1, 60, 64)]


def test_what_is_passed_over() -> None:
    other = b"XFIH\x00\x00\x00\x02ab"
    content = (
        header()
        + other
        + track(
            b"\x00\xff\x03\x04name\x00\xf0\x03abc\x00\xc0\x05\x00\xe0\x00\x40",
            b"\x00\x99\x26\x70",  # a drum
            b"\x00\x90\x3c\x40\x83\x60\x80\x3c\x40",
            b"\x00\x80\x3c\x40",  # an end without a beginning
            b"\x00\x90\x48\x40\x83\x60\xff\x2f\x00garbage behind the end",
        )
    )
    assert pitches(content) == [(0, 0.5, 60, 64), (0.5, 0.5, 72, 64)]


PEDAL_DOWN, PEDAL_UP = b"\x00\xb0\x40\x7f", b"\x00\xb0\x40\x00"
QUARTER = b"\x83\x60"


def test_sustain_pedal() -> None:
    """C is held by the pedal until it is up, E until it is struck again; without the pedal both end with their keys."""
    content = header() + track(
        PEDAL_DOWN,
        b"\x00\x90\x3c\x40\x00\x40\x40",
        QUARTER + b"\x80\x3c\x00\x00\x40\x00",  # 0.5 s: both keys are up
        QUARTER + b"\x90\x40\x40",  # 1 s: E again
        QUARTER + b"\xb0\x40\x00",  # 1.5 s: the pedal is up, E's key still down
        QUARTER + b"\x80\x40\x00",
        END,
    )
    assert pitches(content) == [(0, 1.5, 60, 64), (0, 1.0, 64, 64), (1.0, 2.0, 64, 64)]
    assert pitches(content, sustain=False) == [(0, 0.5, 60, 64), (0, 0.5, 64, 64), (1.0, 2.0, 64, 64)]


def test_a_pedal_that_stays_down_and_one_of_another_channel() -> None:
    keys = b"\x00\x90\x3c\x40" + QUARTER + b"\x80\x3c\x00" + QUARTER + b"\x90\x30\x40" + QUARTER + b"\x80\x30\x00"
    assert pitches(header() + track(PEDAL_DOWN, keys, END)) == [(0, 1.5, 60, 64), (1.0, 1.5, 48, 64)]
    other = b"\x00\xb1\x40\x7f"
    assert pitches(header() + track(other, keys, END)) == [(0, 0.5, 60, 64), (1.0, 1.5, 48, 64)]


HOSTILE = {
    "empty": (b"", "MThd"),
    "another file": (b"RIFF" + bytes(50), "MThd"),
    "short header": (b"MThd\x00\x00\x00\x02\x00\x00" + track(END), "header"),
    "format 2": (header(2) + track(END), "format 2"),
    "no division": (header(0, 1, 0) + track(END), "divides"),
    "odd frames": (header(0, 1, (256 - 7) << 8 | 40) + track(END), "divides"),
    "no ticks in a frame": (header(0, 1, (256 - 25) << 8) + track(END), "divides"),
    "fewer tracks": (header(1, 3) + track(END), "3 tracks"),
    "track longer than the file": (header() + b"MTrk\x7f\xff\xff\xff" + END, "not whole"),
    "number without end": (header() + track(b"\xff\xff\xff\xff\x7f\x90\x3c\x40"), "four bytes"),
    "running status of nothing": (header() + track(b"\x00\x3c\x40"), "0x00"),
    "running status behind a meta message": (header() + track(b"\x00\x90\x3c\x40\x00\xff\x01\x00\x00\x3c\x00"), "0x00"),
    "real time message": (header() + track(b"\x00\xf8"), "0xf8"),
    "message within a message": (header() + track(b"\x00\x90\x3c\x90", END), "within another"),
    "half a message": (header() + track(b"\x00\x90\x3c"), "not whole"),
    "no status": (header() + track(b"\x00"), "not whole"),
    "meta message too long": (header() + track(b"\x00\xff\x01\x7fabc"), "not whole"),
    "no tempo": (header() + track(b"\x00\xff\x51\x03\x00\x00\x00", END), "tempo"),
    "short tempo": (header() + track(b"\x00\xff\x51\x01\x07", END), "tempo"),
    "centuries": (
        header(0, 1, 1) + track(b"\x00\x90\x3c\x40", b"\xff\xff\xff\x7f\x80\x3c\x00", END),
        "longer than a day",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(case: str) -> None:
    content, words = HOSTILE[case]
    with pytest.raises(UnreadableSampleError, match=words):
        read_midi(content)


def test_every_truncation_is_an_error() -> None:
    content = write_midi([Note(start=0, end=1, pitch=60, velocity=64)])
    for length in range(len(content)):
        with pytest.raises(UnreadableSampleError):
            read_midi(content[:length])


def test_random_bytes_are_read_or_named_errors() -> None:
    random = np.random.default_rng(0)
    content = bytearray(write_midi(some_notes(20)))
    for _ in range(1000):
        changed = bytearray(content)
        for place in random.integers(0, len(content), 3):
            changed[place] = random.integers(256)
        try:
            PIANO_EVENTS.encode(read_midi(bytes(changed)))
        except UnreadableSampleError:
            continue


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSampleError, match="nowhere.mid cannot be read"):
        read_midi(tmp_path / "nowhere.mid")
    with pytest.raises(UnreadableSampleError, match="cannot be read"):
        read_midi(tmp_path)


def some_notes(count: int, seed: int = 0) -> list[Note]:
    """Notes of one key after the other, in steps of 10 ms and velocities that their bins keep."""
    random = np.random.default_rng(seed)
    free = dict.fromkeys(range(21, 109), 0)
    notes = []
    for start in sorted(random.integers(0, 1000, count).tolist()):
        pitch = int(random.choice([pitch for pitch, time in free.items() if time <= start]))
        free[pitch] = end = start + int(random.integers(1, 400))
        velocity = 1 + 4 * int(random.integers(32))
        notes.append(Note(start=start / 100, end=end / 100, pitch=pitch, velocity=velocity))
    return sorted(notes, key=lambda note: (note.start, note.pitch))


def test_notes_through_a_file_and_through_events() -> None:
    notes = some_notes(100)
    assert read_midi(write_midi(notes)) == notes
    assert PIANO_EVENTS.decode(PIANO_EVENTS.encode(notes)) == notes


def test_notes_that_cannot_be_written() -> None:
    for note in (
        Note(start=-1, end=1, pitch=60, velocity=64),
        Note(start=2, end=1, pitch=60, velocity=64),
        Note(start=0, end=1, pitch=128, velocity=64),
        Note(start=0, end=1, pitch=60, velocity=0),
        Note(start=0, end=float("nan"), pitch=60, velocity=1),
    ):
        with pytest.raises(ConfigurationError, match="cannot be written"):
            write_midi([note])
    with pytest.raises(ConfigurationError, match="program"):
        write_midi([], program=128)


def test_events_by_hand() -> None:
    """NOTE_ON 2 + pitch - 21, NOTE_OFF 88 later, TIME_SHIFT of s steps 177 + s, VELOCITY 278 + (v - 1) // 4."""
    notes = [
        Note(start=0.0, end=2.5, pitch=60, velocity=64),
        Note(start=0.0, end=0.5, pitch=64, velocity=62),
        Note(start=0.5, end=0.504, pitch=21, velocity=127),
        Note(start=0.5, end=1.0, pitch=20, velocity=64),  # below the piano
    ]
    on, off = 2 - 21, 90 - 21
    assert PIANO_EVENTS.size == 310
    assert PIANO_EVENTS.encode(notes) == [
        *(278 + 15, on + 60, on + 64),
        *(177 + 50, off + 64, 278 + 31, on + 21),
        *(177 + 1, off + 21),
        *(177 + 100, 177 + 99, off + 60),
    ]


def test_events_of_the_full_range_by_hand() -> None:
    """Of midi-neural-processor: 128 NOTE_ON, 128 NOTE_OFF, 100 TIME_SHIFT, 32 VELOCITY v // 4 before every note."""
    notes = [Note(start=0, end=1.5, pitch=0, velocity=3), Note(start=0, end=1.5, pitch=127, velocity=3)]
    assert FULL_RANGE_EVENTS.size == 390
    events = [356, 0, 356, 127, 256 + 99, 256 + 49, 128, 255]
    assert FULL_RANGE_EVENTS.encode(notes) == events
    assert [(note.pitch, note.velocity) for note in FULL_RANGE_EVENTS.decode(events)] == [(0, 1), (127, 1)]


def times(notes: list[Note]) -> list[tuple[float, float, int]]:
    return sorted((note.start, note.end, note.pitch) for note in notes)


@pytest.mark.parametrize("vocabulary", [PIANO_EVENTS, FULL_RANGE_EVENTS])
def test_any_events_give_a_file(vocabulary: object) -> None:
    """Whatever a model draws: ends of nothing, notes without length, notes that never end, padding."""
    random = np.random.default_rng(1)
    for _ in range(20):
        events = random.integers(0, vocabulary.size, 300).tolist()
        notes = vocabulary.decode(events)
        assert times(read_midi(write_midi(notes))) == times(notes)
        assert all(note.end > note.start and 1 <= note.velocity <= 127 for note in notes)
    with pytest.raises(InputMismatchError, match="no event"):
        vocabulary.decode([vocabulary.size])
    with pytest.raises(InputMismatchError, match="no event"):
        vocabulary.decode([-1])


def test_preprocess(tmp_path: Path) -> None:
    notes = some_notes(30)
    (tmp_path / "a.mid").write_bytes(write_midi(notes))
    preprocess = MidiPreprocess(PIANO_EVENTS, 2048)
    sample = preprocess(tmp_path / "a.mid")
    assert sample["input_ids"].tolist() == [0, *PIANO_EVENTS.encode(notes)]
    assert sample["attention_mask"].tolist() == [1] * len(sample["input_ids"])
    assert torch.equal(preprocess(write_midi(notes))["input_ids"], sample["input_ids"])
    assert read_midi(preprocess.to_midi(sample["input_ids"])) == notes
    assert preprocess.accepts(str(tmp_path / "A.MID")) and preprocess.accepts(b"MThd\x00")
    assert not preprocess.accepts("a text") and not preprocess.accepts(torch.zeros(3)) and not preprocess.accepts(b"")
    again = PREPROCESSES["midi"].from_json(preprocess.to_json(), tmp_path)
    assert (again.vocabulary, again.max_length, again.sustain) == (PIANO_EVENTS, 2048, True)
    with pytest.raises(UnreadableSampleError, match="no notes"):
        preprocess(write_midi([]))
    with pytest.raises(ConfigurationError, match="max_length=1"):
        MidiPreprocess(PIANO_EVENTS, 1)


def test_check() -> None:
    preprocess = MidiPreprocess(PIANO_EVENTS, 8)
    preprocess.check({"input_ids": torch.zeros(2, 8, dtype=torch.int64)})
    wrong = [torch.zeros(2, 8), {"input_ids": torch.zeros(2, 8)}, {"input_ids": torch.full((1, 2), 310)}]
    for inputs in [*wrong, {"input_ids": torch.zeros(1, 9, dtype=torch.int64)}]:
        with pytest.raises(InputMismatchError):
            preprocess.check(inputs)


def test_dataset_pads_and_names(tmp_path: Path) -> None:
    for name, count in (("a", 5), ("b", 9), ("c", 40)):
        (tmp_path / f"{name}.mid").write_bytes(write_midi(some_notes(count)))
    paths = [str(tmp_path / f"{name}.mid") for name in "abc"]
    with pytest.warns(InputMismatchWarning, match="reads the first 60"):
        data = MidiPreprocess(FULL_RANGE_EVENTS, 60).wrap(
            as_dataset([(path, n % 2) for n, path in enumerate(paths)]), True
        )
    batch = next(iter(DataLoader(data, batch_size=3, shuffle=False)))
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    assert ids.shape == mask.shape == (3, 60) and batch.targets.tolist() == [0, 1, 0]
    assert mask.sum(1).tolist() == data.lengths.tolist() and data.lengths[2] == 60
    assert set(ids[mask == 0].tolist()) == {FULL_RANGE_EVENTS.pad}
    (tmp_path / "b.mid").write_bytes(b"no music")
    with pytest.raises(UnreadableSampleError, match="b.mid"):
        MidiPreprocess(FULL_RANGE_EVENTS, 600).wrap(as_dataset([(path, 0) for path in paths]), True)
