"""VGGish against its equations in numpy, its published names and sizes, and files in the published form.

All but the counts and names use narrow layers: the published ones are 289 MB.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from neurenix.data import ListDataset
from neurenix.errors import DamagedFileError, InputMismatchError, WeightsMismatchError
from neurenix.models import ARCHITECTURES, BuildOptions, PathSource
from neurenix.models.audio import _vggish_network as network
from neurenix.models.audio.vggish import PCA, postprocess, read_pca
from neurenix.models.sources import obtain
from neurenix.training.prefix.graph import NotSplittable
from neurenix.training.prefix.split import split
from neurenix.transfer import AdapterTuner, Finetuner, LoraTuner, load_pretrained_model

CONVOLUTIONS, DENSE = (0, 3, 6, 8, 11, 13), (0, 2, 4)
SHORTEST = 15_600  # 0.975 s at 16 kHz


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_WIDTHS", (3, None, 4, None, 5, 5, None, 6, 6, None))
    monkeypatch.setattr(network, "_DIMENSIONS", (6 * 6 * 4, 9, 8, 128))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def published(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A plain state dict under the published names, with random numbers."""
    generator = torch.Generator().manual_seed(3)
    state = {
        name: torch.randn(tensor.shape, generator=generator) * 0.4 + 0.05
        for name, tensor in network.VGGish().state_dict().items()
    }
    torch.save(state, tmp_path / "vggish.pth")
    return tmp_path / "vggish.pth", state


# --- the equations ---------------------------------------------------------------------------------------------


def log_mel_by_numpy(waveform: np.ndarray) -> np.ndarray:
    """(frames, 64): magnitudes of 25 ms every 10 ms in HTK's triangles, as the paper's section 2 and its code say."""
    mel = lambda hertz: 1127 * np.log(1 + hertz / 700)  # noqa: E731
    edges = np.linspace(mel(125), mel(7500), 66)
    bins = mel(np.arange(257) * 16_000 / 512)
    filters = np.zeros((257, 64))
    for place in range(1, 257):
        for band in range(64):
            left, middle, right = edges[band : band + 3]
            rising, falling = (bins[place] - left) / (middle - left), (right - bins[place]) / (right - middle)
            filters[place, band] = max(0.0, min(rising, falling))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    starts = range(0, len(waveform) - 400 + 1, 160)
    magnitudes = np.stack([np.abs(np.fft.rfft(waveform[start : start + 400] * window, 512)) for start in starts])
    return np.log(magnitudes @ filters + 0.01)


def embedding_by_numpy(example: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
    maps = example[None]
    for place in CONVOLUTIONS:
        weights, bias = state[f"features.{place}.weight"], state[f"features.{place}.bias"]
        padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)))
        _, high, wide = maps.shape
        taps = [
            np.einsum("oc,chw->ohw", weights[:, :, y, x], padded[:, y : y + high, x : x + wide])
            for y in range(3)
            for x in range(3)
        ]
        maps = np.maximum(sum(taps) + bias[:, None, None], 0)
        if place not in (6, 11):
            maps = maps.reshape(len(maps), high // 2, 2, wide // 2, 2).max((2, 4))
    flat = np.array([maps[channel, y, x] for y in range(6) for x in range(4) for channel in range(len(maps))])
    for place in DENSE:
        flat = np.maximum(state[f"embeddings.{place}.weight"] @ flat + state[f"embeddings.{place}.bias"], 0)
    return flat


@pytest.mark.usefixtures("narrow")
@torch.inference_mode()
def test_equal_to_the_equations(tmp_path: Path) -> None:
    file, state = published(tmp_path)
    model = load_pretrained_model("vggish", weights=file, device="cpu")
    waveform = noise(1, 32_500)
    features = model.features(waveform)[0].double().numpy()
    frames = log_mel_by_numpy(waveform[0].double().numpy())
    assert len(frames) == 201 and features.shape == (2, 128)
    numbers = {name: tensor.double().numpy() for name, tensor in state.items()}
    for place in range(2):
        expected = embedding_by_numpy(frames[96 * place : 96 * place + 96], numbers)
        assert (expected > 0).sum() > 10
        np.testing.assert_allclose(features[place], expected, rtol=1e-3, atol=1e-4 * expected.max())


@pytest.mark.usefixtures("narrow")
@torch.inference_mode()
def test_a_clip_is_the_mean_of_its_own_examples(tmp_path: Path) -> None:
    model = load_pretrained_model("vggish", weights=published(tmp_path)[0], device="cpu")
    lengths = [60_000, 40_000, SHORTEST, 9_000]
    mask = (torch.arange(60_000) < torch.tensor(lengths)[:, None]).long()
    waveforms = noise(4, 60_000) * mask
    batch = {"waveform": waveforms, "attention_mask": mask}
    assert model.trunk.feature_mask(batch).sum(1).tolist() == [3, 2, 1, 1]
    assert model.trunk.feature_mask(waveforms) is None
    found = model(batch)
    assert found.shape == (4, 128) and model.features(batch).shape == (4, 3, 128)
    for place, length in enumerate(lengths):
        alone = waveforms[place : place + 1, : max(length, SHORTEST)]
        torch.testing.assert_close(found[place], model(alone)[0], rtol=1e-4, atol=1e-4)
    prepared = model.preprocess((waveforms[3, :9000], 16_000))
    assert prepared["waveform"].shape == (SHORTEST,)
    with pytest.raises(InputMismatchError, match="needs 15600"):
        model(torch.zeros(1, 9000))


# --- published sizes and names ---------------------------------------------------------------------------------


def test_published_sizes() -> None:
    """72.14 million parameters, 288.6 MB as float32 as the file has them."""
    with torch.device("meta"):
        parts = ARCHITECTURES["vggish"].build(BuildOptions(num_classes=0))
    assert sum(tensor.numel() for tensor in parts.trunk.parameters()) == 72_141_184
    shapes = {name: tuple(tensor.shape) for name, tensor in parts.trunk.state_dict().items()}
    layers = [*(f"features.{place}" for place in CONVOLUTIONS), *(f"embeddings.{place}" for place in DENSE)]
    assert set(shapes) == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert shapes["embeddings.0.weight"] == (4096, 12288) and shapes["features.13.weight"] == (512, 512, 3, 3)
    assert parts.head is None and parts.feature_size == 128


def test_the_file_is_named_by_its_hash() -> None:
    record = ARCHITECTURES["vggish"].weights["audioset"]
    assert record.sha256 and f"-{record.sha256}.pth" in record.source.url
    assert PCA.sha256 and f"-{PCA.sha256}.pth" in PCA.url


# --- files -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("narrow")
@torch.inference_mode()
def test_files_load_whole_and_come_back(tmp_path: Path) -> None:
    file, state = published(tmp_path)
    model = load_pretrained_model("vggish", weights=file, device="cpu")
    assert {fate.fate for fate in model.load_report.tensors} == {"matched"}
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.trunk.state_dict().items())
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "ours.safetensors")
    again = load_pretrained_model("vggish", weights=tmp_path / "ours.safetensors", device="cpu")
    waveform = noise(1, SHORTEST)
    assert torch.equal(again(waveform), model(waveform))


@pytest.mark.usefixtures("narrow")
def test_bad_files_are_named(tmp_path: Path) -> None:
    file, state = published(tmp_path)
    record = replace(ARCHITECTURES["vggish"].weights["audioset"], source=PathSource(str(file)))
    with pytest.raises(DamagedFileError, match="SHA-256"):
        obtain(record)
    swapped = {name.replace("embeddings", "classifier"): tensor for name, tensor in state.items()}
    reshaped = {name: tensor.flatten() for name, tensor in state.items()}
    for content in (swapped, reshaped):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(WeightsMismatchError, match="vggish"):
            load_pretrained_model("vggish", weights=tmp_path / "other.pth", device="cpu")
    (tmp_path / "cut.pth").write_bytes(file.read_bytes()[:2000])
    with pytest.raises(DamagedFileError, match=r"cut\.pth"):
        load_pretrained_model("vggish", weights=tmp_path / "cut.pth", device="cpu")


def test_postprocessing(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    vectors, means = generator.normal(size=(128, 128)) / 8, generator.normal(size=(128, 1)) / 8
    torch.save({"pca_eigen_vectors": vectors, "pca_means": means}, tmp_path / "pca.pth")
    embeddings = generator.random((3, 128))
    found = postprocess(torch.from_numpy(embeddings).float(), *read_pca(tmp_path / "pca.pth")).numpy()
    for row in range(3):
        for place in range(128):
            value = sum(vectors[place, i] * (embeddings[row, i] - means[i, 0]) for i in range(128))
            value = (min(max(value, -2.0), 2.0) + 2) * 255 / 4
            if abs(value % 1 - 0.5) > 1e-3:
                assert found[row, place] == round(value)
    assert found.min() == 0 and found.max() == 255 and len(np.unique(found)) > 50
    torch.save({"pca_means": means}, tmp_path / "half.pth")
    with pytest.raises(WeightsMismatchError, match="pca_eigen_vectors"):
        read_pca(tmp_path / "half.pth")
    torch.save({"pca_eigen_vectors": vectors[:3], "pca_means": means}, tmp_path / "small.pth")
    with pytest.raises(WeightsMismatchError, match="128, 128"):
        read_pca(tmp_path / "small.pth")


# --- transfer --------------------------------------------------------------------------------------------------


def tones() -> ListDataset:
    """Six sounds of two classes, each of one or two examples."""
    sounds: list[Any] = []
    for number in range(6):
        time = np.arange(16_000 * (1 + number % 2) + 4000) / 16_000
        sounds.append((0.3 * np.sin(2 * math.pi * (400, 3000)[number % 2] * time), 16_000))
    return ListDataset(sounds, [0, 1] * 3)


@pytest.mark.usefixtures("narrow")
def test_a_fit_learns_and_comes_back_as_it_was(tmp_path: Path) -> None:
    file = published(tmp_path)[0]
    model = load_pretrained_model("vggish", weights=file, device="cpu")
    tuner = Finetuner(model, num_classes=2, freeze_layers=["features"], augmented_views=1)
    history = tuner.fit(tones(), epochs=3, batch_size=6, run=False)
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    tuner.save(tmp_path / "saved")
    again = Finetuner.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict_proba(tones()), tuner.predict_proba(tones()))


@pytest.mark.usefixtures("narrow")
def test_every_tuner_finds_its_place(tmp_path: Path) -> None:
    file = published(tmp_path)[0]
    for tuner in (AdapterTuner, LoraTuner):
        tuned = tuner(load_pretrained_model("vggish", weights=file, device="cpu"), num_classes=3)
        assert any(parameter.requires_grad for parameter in tuned.model.trunk.parameters())
        assert tuned.model(noise(2, SHORTEST)).shape == (2, 3)


@pytest.mark.usefixtures("narrow")
def test_features_with_a_mask_of_their_own_are_not_cut_in_two() -> None:
    model = load_pretrained_model("vggish", weights=None, device="cpu")
    model.trunk.features.requires_grad_(False)
    batch = {"waveform": noise(2, SHORTEST), "attention_mask": torch.ones(2, SHORTEST, dtype=torch.long)}
    with pytest.raises(NotSplittable, match="mask"):
        split(model, batch)
