"""Sounds: files and arrays to one channel at one rate, mel filters, preprocessing, folders."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from neurenix.audio import AudioInput, AudioPreprocess
from neurenix.audio.mel import htk_filters, htk_mel, slaney_filters, slaney_hertz, slaney_mel
from neurenix.data import (
    AudioFiles,
    AudioFolder,
    DataLoader,
    as_dataset,
    as_mono,
    prepare,
    read_audio,
    write_data_manifest,
)
from neurenix.errors import (
    ConfigurationError,
    EmptyDatasetError,
    InputMismatchError,
    InputMismatchWarning,
    UnreadableSampleError,
)

RATE = 16_000


def tone(hertz: float, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def write(path: Path, samples: np.ndarray, rate: int = RATE, **options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind, hertz in (("high", 900.0), ("low", 200.0)):
        for number in range(3):
            write(tmp_path / kind / f"{number}.wav", tone(hertz, 0.2 + 0.1 * number))
    return tmp_path


# --- files and arrays ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_formats(tmp_path: Path, name: str) -> None:
    samples, rate = read_audio(write(tmp_path / name, tone(440.0)))
    assert rate == RATE and samples.dtype == torch.float32
    assert len(samples) == pytest.approx(RATE / 2, abs=1500)  # lossy formats fill up their last frame
    assert float(samples.abs().max()) == pytest.approx(0.5, abs=0.1)


def test_channels_are_averaged_and_whole_numbers_scaled() -> None:
    stereo = np.stack([tone(440.0), np.zeros(RATE // 2)])
    mono, _ = as_mono(stereo, RATE, None)
    np.testing.assert_allclose(mono.numpy(), stereo.mean(0), atol=1e-7)
    whole = np.array([0, 16384, -32768], dtype=np.int16)
    assert as_mono(whole, RATE, None)[0].tolist() == [0.0, 0.5, -1.0]
    assert as_mono(torch.tensor([128, 0, 192], dtype=torch.uint8), RATE, None)[0].tolist() == [0.0, -1.0, 0.5]


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_another_rate_keeps_the_tone(rate: int) -> None:
    samples, own = as_mono(tone(440.0, rate=rate), rate, RATE)
    assert own == RATE and abs(len(samples) - RATE // 2) <= 1
    powers = np.abs(np.fft.rfft(samples.numpy()))
    assert np.argmax(powers) * RATE / len(samples) == pytest.approx(440.0, abs=2)
    middle = slice(1000, 7000)
    np.testing.assert_allclose(samples.numpy()[middle], tone(440.0)[middle], atol=2e-3)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros((8000, 2)), RATE, "(channels, samples)"),
        (np.zeros((1, 2, 3)), RATE, "(channels, samples)"),
        (np.zeros(0), RATE, "with samples in it"),
        (np.array([0.0, math.nan]), RATE, "NaN"),
        (np.array([0.0, 3000.0]), RATE, "lie in [-1, 1]"),
        (np.array([1 + 2j]), RATE, "complex"),
        (np.array([0, 16384, -32768]), RATE, "int64"),
        (np.zeros(8), 44, "in hertz"),
        (np.zeros(8), 16000.5, "in hertz"),
    ],
)
def test_what_is_no_sound_is_named(samples: np.ndarray, rate: int, message: str) -> None:
    with pytest.raises(InputMismatchError) as error:
        as_mono(samples, rate, None)
    assert message in str(error.value)


def test_bad_files_are_named(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.flac", tone(440.0)).read_bytes()
    (tmp_path / "noise.wav").write_bytes(b"RIFF" + bytes(range(200)))
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "cut.flac").write_bytes(whole[:200])
    for name in ("noise.wav", "empty.wav", "cut.flac", "missing.wav"):
        with pytest.raises(UnreadableSampleError, match=name):
            read_audio(tmp_path / name)
    with pytest.raises(UnreadableSampleError, match="holds no samples"):
        read_audio(write(tmp_path / "silent.wav", np.zeros(0)))
    with pytest.raises(UnreadableSampleError, match="more than 0 seconds are not decoded"):
        read_audio(tmp_path / "whole.flac", max_seconds=0.1)


# --- mel -------------------------------------------------------------------------------------------------------


def test_mel_scales() -> None:
    """Slaney's Toolbox: 1 kHz is 15 mel, 6.4 kHz 42 mel. HTK: 1 kHz is 1000 mel, but for its rounded 1127."""
    hertz = torch.tensor([0.0, 200.0, 1000.0, 6400.0], dtype=torch.float64)
    torch.testing.assert_close(slaney_mel(hertz), torch.tensor([0.0, 3.0, 15.0, 42.0], dtype=torch.float64))
    torch.testing.assert_close(slaney_hertz(slaney_mel(hertz)), hertz)
    assert float(htk_mel(torch.tensor(1000.0, dtype=torch.float64))) == pytest.approx(1000.0, abs=0.02)


def filters_by_loops(rate: int, size: int, count: int, lowest: float, highest: float, slaney: bool) -> np.ndarray:
    def to_mel(f: float) -> float:
        if not slaney:
            return 1127 * math.log(1 + f / 700)
        return f * 3 / 200 if f < 1000 else 15 + 27 * math.log(f / 1000) / math.log(6.4)

    def to_hertz(m: float) -> float:
        return m * 200 / 3 if m < 15 else 1000 * math.exp((m - 15) * math.log(6.4) / 27)

    step = (to_mel(highest) - to_mel(lowest)) / (count + 1)
    edges = [to_mel(lowest) + step * place for place in range(count + 2)]
    edges = [to_hertz(edge) for edge in edges] if slaney else edges
    filters = np.zeros((size // 2 + 1, count))
    for place in range(size // 2 + 1):
        x = place * rate / size if slaney else to_mel(place * rate / size)
        for number in range(count):
            left, middle, right = edges[number : number + 3]
            height = (x - left) / (middle - left) if x <= middle else (right - x) / (right - middle)
            filters[place, number] = max(0.0, height) * (2 / (right - left) if slaney else 1)
    return filters


def test_filters_equal_their_formula() -> None:
    ours = slaney_filters(32_000, 1024, 64, 50.0, 14_000.0)
    np.testing.assert_allclose(ours.numpy(), filters_by_loops(32_000, 1024, 64, 50.0, 14_000.0, True), atol=1e-7)
    area = ours.double().sum(0) * 32_000 / 1024
    assert float((area[20:] - 1).abs().max()) < 0.05  # wide filters have area 1
    ours = htk_filters(16_000, 512, 64, 125.0, 7500.0)
    expected = filters_by_loops(16_000, 512, 64, 125.0, 7500.0, False)
    np.testing.assert_allclose(ours.numpy()[1:], expected[1:], atol=1e-6)
    assert not ours[0].any()


# --- preprocessing ---------------------------------------------------------------------------------------------


def test_lengths_masks_and_scaling() -> None:
    spec = AudioInput(shortest=1000, longest=4000, multiple=64, normalise=True)
    short = AudioPreprocess(spec)((tone(440.0, 0.01), RATE))
    assert short["waveform"].shape == (1024,) and int(short["attention_mask"].sum()) == 1000
    long = AudioPreprocess(spec)(tone(440.0))
    assert long["waveform"].shape == (4032,) and int(long["attention_mask"].sum()) == 4000
    real = long["waveform"][:4000]
    assert float(real.mean()) == pytest.approx(0, abs=1e-5) and float(real.var(correction=0)) == pytest.approx(
        1, abs=1e-4
    )
    assert AudioPreprocess.from_json(AudioPreprocess(spec).to_json()) == AudioPreprocess(spec)


def test_augmentation_is_moderate() -> None:
    torch.manual_seed(0)
    raw = tone(440.0)
    changed = [AudioPreprocess(AudioInput(), "standard")(raw)["waveform"] for _ in range(8)]
    loudest = [float(each.abs().max()) for each in changed]
    assert len(set(loudest)) == 8 and min(loudest) > 0.24 and max(loudest) < 1.01
    assert all(each.shape == (len(raw),) for each in changed)
    with pytest.raises(ConfigurationError, match="standard"):
        AudioPreprocess(AudioInput(), "loud")


def test_batches_are_checked() -> None:
    preprocess = AudioPreprocess(AudioInput())
    good = {"waveform": torch.rand(2, 800), "attention_mask": torch.ones(2, 800, dtype=torch.long)}
    preprocess.check(good)
    for bad in (torch.rand(2, 800), {"waveform": torch.rand(2, 8)}, {"waveform": torch.full((2, 800), math.nan)}):
        with pytest.raises(InputMismatchError):
            preprocess.check(bad)
    with pytest.warns(InputMismatchWarning, match="silent"):
        preprocess.check({"waveform": torch.zeros(1, 800)})


# --- folders ---------------------------------------------------------------------------------------------------


def test_folder_becomes_padded_batches(folder: Path) -> None:
    dataset = as_dataset(folder)
    assert isinstance(dataset, AudioFolder) and dataset.classes == ["high", "low"]
    assert dataset.sample_name(4).endswith("low/1.wav") and dataset.targets.tolist() == [0, 0, 0, 1, 1, 1]
    ready = prepare(dataset, AudioPreprocess(AudioInput()), training=False)
    inputs, targets = next(iter(DataLoader(ready, batch_size=6)))
    assert inputs["waveform"].shape == (6, 6400) and inputs["attention_mask"].sum(1).tolist() == [3200, 4800, 6400] * 2
    assert targets.tolist() == [0, 0, 0, 1, 1, 1]
    files = as_dataset(([folder / "low" / "0.wav", folder / "high" / "1.wav"], ["low", "high"]))
    assert isinstance(files, AudioFiles) and files.classes == ["high", "low"]


def test_damaged_files_are_skipped_or_named(folder: Path) -> None:
    (folder / "low" / "1.wav").write_bytes(b"RIFF")
    ready = prepare(AudioFolder(folder, on_bad="skip"), AudioPreprocess(AudioInput()), training=False)
    loader = DataLoader(ready, batch_size=6)
    assert len(next(iter(loader)).targets) == 5 and loader.skipped[0].name.endswith("low/1.wav")
    with pytest.raises(UnreadableSampleError, match=r"low/1.wav"):
        AudioFolder(folder)[4]


def test_changed_files_are_found(folder: Path) -> None:
    write_data_manifest(folder)
    assert len(AudioFolder(folder, verify=True)[0][0][0]) == 3200
    write(folder / "high" / "0.wav", tone(901.0, 0.2))
    with pytest.raises(UnreadableSampleError, match=r"high/0.wav"):
        AudioFolder(folder, verify=True)[0]


def test_empty_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(EmptyDatasetError, match=r"without any sound"):
        AudioFolder(tmp_path)
    write(tmp_path / "loose.wav", tone(440.0))
    with pytest.raises(EmptyDatasetError, match="found 1 sounds directly in it"):
        AudioFolder(tmp_path)
