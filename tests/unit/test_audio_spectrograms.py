"""Spectrograms against plain loops, SpecAugment's bounds, sounds of similar length in one batch."""

from __future__ import annotations

import cmath
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from torch.utils.data import Subset as TorchSubset

from neurenix.audio import AudioInput, AudioPreprocess, SpecAugment
from neurenix.audio.mel import slaney_hertz, slaney_mel
from neurenix.audio.spec_augment import mask_stripes
from neurenix.audio.spectrogram import full_precision, mirrored, real_lengths, spectrogram
from neurenix.data import AudioFolder, DataLoader, Subset, as_dataset, padding_share, prepare, relabelled
from neurenix.errors import SkippedSamplesWarning


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("power", [1, 2, 0.5])
def test_spectrogram_is_the_fourier_transform_of_each_frame(power: float) -> None:
    waveform, window, size, hop = noise(1, 40), torch.hann_window(12), 16, 5
    found = spectrogram(waveform, window, size, hop, power=power)[0]
    frames = 1 + (40 - 12) // 5
    assert found.shape == (frames, 9)
    for frame in range(frames):
        for place in range(9):
            total = sum(
                float(waveform[0, frame * hop + t])
                * (0.5 - 0.5 * math.cos(2 * math.pi * t / 12))
                * cmath.exp(-2j * math.pi * place * t / size)
                for t in range(12)
            )
            assert float(found[frame, place]) == pytest.approx(abs(total) ** power, rel=1e-4, abs=1e-5)


def test_a_tone_is_in_its_bin() -> None:
    """3 kHz of 32 kHz in 1024 bins is bin 96; a unit sine under a periodic Hann window has magnitude n / 4."""
    waveform = torch.sin(2 * math.pi * 3000 * torch.arange(4096, dtype=torch.float64) / 32_000).float()
    found = spectrogram(waveform[None], torch.hann_window(1024), 1024, 320, power=1)[0]
    assert found.argmax(1).tolist() == [96] * len(found)
    torch.testing.assert_close(found[:, 96], torch.full((len(found),), 256.0), rtol=1e-4, atol=0)


def test_each_clip_is_mirrored_at_its_own_end() -> None:
    waveforms = noise(3, 30)
    lengths = torch.tensor([30, 17, 6])
    found = mirrored(waveforms, lengths, 4)
    assert found.shape == (3, 38)
    for clip, length in enumerate(lengths.tolist()):
        expected = np.pad(waveforms[clip, :length].numpy(), 4, mode="reflect")
        np.testing.assert_array_equal(found[clip, : length + 8].numpy(), expected)
    torch.testing.assert_close(mirrored(waveforms, None, 4)[0], found[0])
    assert real_lengths(torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]), 2).tolist() == [2, 2]


def test_mel_frequencies_are_those_of_librosa() -> None:
    """Edges that librosa's documentation lists for mel_frequencies(n_mels=40), fmin 0, fmax 11025."""
    ends = slaney_mel(torch.tensor([0.0, 11025.0], dtype=torch.float64))
    edges = slaney_hertz(torch.linspace(float(ends[0]), float(ends[1]), 40, dtype=torch.float64))
    listed = {1: 85.317, 2: 170.635, 11: 938.49, 12: 1024.856, 13: 1119.114, 20: 2071.84, 38: 10096.408, 39: 11025.0}
    for place, hertz in listed.items():
        assert float(edges[place]) == pytest.approx(hertz, abs=6e-4)


def test_logarithms_are_taken_in_full_precision_under_autocast() -> None:
    one = torch.ones(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (one @ one).dtype == torch.bfloat16
        with full_precision(one.device):
            assert (one @ one).dtype == torch.float32


# --- SpecAugment -----------------------------------------------------------------------------------------------


def runs(hidden: Tensor) -> list[int]:
    """Lengths of the runs of True in (n,)."""
    text = "".join("x" if each else " " for each in hidden.tolist())
    return [len(run) for run in text.split()]


def test_stripes_have_their_widths_and_are_each_samples_own() -> None:
    torch.manual_seed(0)
    ones = torch.ones(200, 1, 50, 12)
    found = mask_stripes(ones, 2, 10, 1)[:, 0, :, 0] == 0
    lengths = [run for sample in found for run in runs(sample)]
    assert max(lengths) == 9 and min(lengths) == 1 and all(len(runs(sample)) <= 1 for sample in found)
    assert found.float().sum(1).mean() == pytest.approx(4.5, abs=0.6)  # uniform in 0 .. 9
    assert len({tuple(sample.tolist()) for sample in found}) > 100
    assert torch.equal(mask_stripes(ones, 3, 40, 1)[:, 0, 0], mask_stripes(ones, 3, 40, 1)[:, 0, 0]) is False
    narrow = mask_stripes(torch.ones(50, 1, 1, 3), 3, 8, 2)  # a width above the size hides less than all of it
    assert all(max(runs(sample[0, 0] == 0), default=0) <= 3 for sample in narrow)


def test_spec_augment_works_in_training_alone() -> None:
    augment = SpecAugment(frames=8, bands=4, stripes=2)
    maps = torch.ones(4, 1, 40, 16)
    assert torch.equal(augment.eval()(maps), maps)
    torch.manual_seed(1)
    changed = augment.train()(maps)
    assert changed.shape == maps.shape and 0 < float((changed == 0).float().mean()) < 0.75
    torch.manual_seed(1)
    assert torch.equal(augment(maps), changed)
    assert "frames=8" in repr(augment)


# --- lengths ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        for number in range(8):
            samples = 0.1 * np.sin(np.arange(800 * (1 + number)) / 3)
            soundfile.write(tmp_path / kind / f"{number}.wav", samples, 8000)
    return tmp_path


def test_sounds_of_similar_length_share_a_batch(folder: Path) -> None:
    (folder / "b" / "7.wav").write_bytes(b"RIFF")
    dataset = AudioFolder(folder, on_bad="skip")
    assert dataset.lengths.tolist() == [100 * n for n in range(1, 9)] + [100 * n for n in range(1, 8)] + [1]
    spec = AudioInput(sample_rate=16_000, shortest=2000, longest=9600)
    ready = prepare(dataset, AudioPreprocess(spec), training=False)
    expected = [2000, 3200, 4800, 6400, 8000, 9600, 9600, 9600]
    assert ready.lengths.tolist() == [*expected, *expected[:7], 2000]
    loader = DataLoader(ready, batch_size=4, shuffle=True, bad_limit=0.1)
    plain = 1 - np.mean(ready.lengths) / 9600
    assert padding_share(loader) < plain / 2
    with pytest.warns(SkippedSamplesWarning, match=r"b/7\.wav"):
        shapes = [batch.inputs["waveform"].shape[1] for batch in loader.batches(0)]
    assert min(shapes) < 5000 and max(shapes) == 9600 and len(loader.skipped) == 1


def test_parts_of_a_dataset_keep_the_lengths(folder: Path) -> None:
    part = Subset(as_dataset(folder), [3, 9])
    assert part.lengths.tolist() == [400, 200]
    theirs = relabelled(TorchSubset(as_dataset(folder), [3, 9]), ["b", "a"])
    assert theirs.lengths.tolist() == [400, 200]
    ready = prepare(part, AudioPreprocess(AudioInput(sample_rate=8000)), training=True)
    assert ready.lengths.tolist() == [3200, 1600]
    assert prepare([(np.ones(900), 0)], AudioPreprocess(AudioInput()), False).lengths is None
