"""PANNs against its equations in numpy, its published names and sizes, and files in the published form."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from neurenix.data import ListDataset
from neurenix.errors import (
    ConfigurationError,
    DamagedFileError,
    InputMismatchError,
    UnknownNameError,
    UnsafeFileError,
    WeightsMismatchError,
)
from neurenix.models import ARCHITECTURES, BuildOptions, PathSource, PretrainedModel
from neurenix.models.audio._panns_network import Panns, PannsSizes
from neurenix.models.audio.panns import SIZES, convert_panns
from neurenix.models.sources import obtain
from neurenix.nn import Pool
from neurenix.training.prefix.split import split
from neurenix.transfer import AdapterTuner, Finetuner, LoraTuner, load_pretrained_model

SMALL = PannsSizes(widths=(3, 4, 5), halved=2, sample_rate=8000, window=128, hop=40, highest=3500.0)
RATE = 32_000


def randomised(module: nn.Module) -> Any:
    """Every number drawn anew, so that no zero, one or coincidence of the start hides a mistake."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if "melW" not in name and tensor.is_floating_point():
                drawn = torch.rand(tensor.shape, generator=generator) - 0.3
                tensor.copy_(drawn * (0.3 if tensor.ndim > 1 else 1) + (0.5 if "running_var" in name else 0))
    return module.eval()


@pytest.fixture(scope="module")
def small() -> Panns:
    return randomised(Panns(SMALL))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_model(outputs: int = 3) -> PretrainedModel:
    """A model of the family with small sizes, as load_pretrained_model puts it together."""
    torch.manual_seed(0)
    architecture = replace(ARCHITECTURES["panns-cnn14"], stages=("bn0", *(f"conv_block{n}" for n in (1, 2, 3)), "fc1"))
    expected = replace(architecture.input, sample_rate=SMALL.sample_rate, shortest=SMALL.shortest)
    trunk = Panns(SMALL)
    return PretrainedModel(
        trunk=trunk,
        pool=Pool("avg"),
        head=nn.Linear(5, outputs),
        feature_size=5,
        stages=architecture.stages,
        head_name="fc_audioset",
        preprocess=expected.open(trunk, None, None),
        architecture=architecture,
    ).eval()


# --- the equations ---------------------------------------------------------------------------------------------


def embedding_by_numpy(waveform: np.ndarray, state: dict[str, np.ndarray], sizes: PannsSizes) -> np.ndarray:
    size, hop = sizes.window, sizes.hop
    padded = np.pad(waveform, size // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    frames = [padded[start : start + size] * window for start in range(0, len(padded) - size + 1, hop)]
    powers = np.abs(np.fft.rfft(np.stack(frames))) ** 2
    decibels = 10 * np.log10(np.maximum(powers @ state["logmel_extractor.melW"], 1e-10))
    maps = normed(decibels.T[:, None], state, "bn0").transpose(1, 2, 0)  # (1, frames, bands)
    for number in range(1, len(sizes.widths) + 1):
        for place in range(1, sizes.convolutions + 1):
            name = f"conv_block{number}."
            maps = convolved(maps, state[f"{name}conv{place}.weight"])
            maps = np.maximum(normed(maps, state, f"{name}bn{place}"), 0)
        if number <= sizes.halved:
            channels, high, wide = maps.shape
            maps = maps[:, : high // 2 * 2, : wide // 2 * 2].reshape(channels, high // 2, 2, wide // 2, 2).mean((2, 4))
    series = maps.mean(2)
    pooled = series.max(1) + series.mean(1)
    return np.maximum(state["fc1.weight"] @ pooled + state["fc1.bias"], 0)


def convolved(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    side = weights.shape[2]
    padded = np.pad(maps, ((0, 0), (side // 2, side // 2), (side // 2, side // 2)))
    _, high, wide = maps.shape
    return sum(
        np.einsum("oc,chw->ohw", weights[:, :, y, x], padded[:, y : y + high, x : x + wide])
        for y in range(side)
        for x in range(side)
    )


def normed(maps: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    mean, variance = (state[f"{name}.running_{kind}"][:, None, None] for kind in ("mean", "var"))
    scale, shift = (state[f"{name}.{kind}"][:, None, None] for kind in ("weight", "bias"))
    return (maps - mean) / np.sqrt(variance + 1e-5) * scale + shift


@pytest.mark.parametrize("sizes", [SMALL, replace(SMALL, kernel=5, convolutions=1)], ids=["two 3x3", "one 5x5"])
@torch.inference_mode()
def test_equal_to_the_equations(sizes: PannsSizes) -> None:
    network = randomised(Panns(sizes))
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    waveform = noise(1, 700)
    expected = embedding_by_numpy(waveform[0].double().numpy(), state, sizes)
    assert (expected > 0).sum() > 1
    np.testing.assert_allclose(network(waveform)[0].numpy(), expected, rtol=2e-4, atol=2e-4)


@torch.inference_mode()
def test_a_clip_has_its_own_embedding_in_any_batch(small: Panns) -> None:
    """Batches are filled up behind shorter clips; the reference is the clip alone, without a mask."""
    lengths = [900, 611, 300, SMALL.shortest]
    waveforms = noise(4, 900)
    mask = (torch.arange(900) < torch.tensor(lengths)[:, None]).long()
    found = small({"waveform": waveforms * mask, "attention_mask": mask})
    for place, length in enumerate(lengths):
        torch.testing.assert_close(found[place], small(waveforms[place : place + 1, :length])[0], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_silence_and_short_clips(small: Panns) -> None:
    shortest = torch.zeros(1, SMALL.shortest)
    assert bool(small(shortest).isfinite().all())
    with pytest.raises(InputMismatchError, match=f"needs {SMALL.shortest}"):
        small(shortest[:, 1:])
    with pytest.raises(InputMismatchError, match="waveforms"):
        small(torch.zeros(1, 1, 900))
    with pytest.raises(InputMismatchError, match="none came"):
        small({"input_ids": torch.zeros(1, 900)})


def test_spectrograms_are_hidden_in_training_where_all_learns() -> None:
    network = randomised(Panns(SMALL)).train()
    network.dropout.eval()
    for number in (1, 2, 3):
        network.get_submodule(f"conv_block{number}").eval()
    waveform = noise(1, 900)
    with torch.no_grad():
        network.bn0.eval()
        torch.manual_seed(0)
        assert not torch.equal(network(waveform), network(waveform))
        network.bn0.requires_grad_(False)  # below frozen layers nothing is random
        assert torch.equal(network(waveform), network(waveform))


def test_autocast_leaves_the_front_end_alone(small: Panns) -> None:
    waveform = noise(1, 900)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(small.log_mel(waveform, None), small.log_mel(waveform, None))
        cast = small.log_mel(waveform, None)
    assert torch.equal(cast, small.log_mel(waveform, None))


# --- published sizes and names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "width"),
    [
        ("panns-cnn6", 4_837_455, 512),
        ("panns-cnn10", 5_219_279, 512),
        ("panns-cnn14", 80_753_615, 2048),
        ("panns-cnn14-16k", 80_753_615, 2048),
    ],
)
def test_published_sizes(name: str, parameters: int, width: int) -> None:
    """Parameters as the paper counts them (arXiv:1912.10211), without the fixed front end."""
    with torch.device("meta"):
        parts = ARCHITECTURES[name].build(BuildOptions(num_classes=527))
    modules = (parts.trunk, parts.head)
    assert sum(tensor.numel() for module in modules for tensor in module.parameters()) == parameters
    assert parts.feature_size == width == parts.head.in_features
    bins, convolutions = (257 if "16k" in name else 513), 1 if name.endswith("cnn6") else 2
    blocks = 6 if "14" in name else 4
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"logmel_extractor.melW", "fc1.weight", "fc1.bias", *(f"bn0.{part}" for part in norm)}
    for block in range(1, blocks + 1):
        for place in range(1, convolutions + 1):
            expected |= {f"conv_block{block}.conv{place}.weight"}
            expected |= {f"conv_block{block}.bn{place}.{part}" for part in norm}
    assert set(parts.trunk.state_dict()) == expected
    assert parts.trunk.logmel_extractor.melW.shape == (bins, 64)


def test_shortest_clips() -> None:
    assert {name: sizes.shortest for name, sizes in SIZES.items()} == {
        "panns-cnn6": 4800,
        "panns-cnn10": 4800,
        "panns-cnn14": 9920,
        "panns-cnn14-16k": 4960,
    }
    for name, sizes in SIZES.items():
        assert ARCHITECTURES[name].input.shortest == sizes.shortest
        assert ARCHITECTURES[name].input.sample_rate == sizes.sample_rate


# --- files -----------------------------------------------------------------------------------------------------


def published(tmp_path: Path, *, prefix: str = "", sampler: bool = False) -> tuple[Path, dict[str, Tensor]]:
    """A file as the authors saved theirs, with random numbers in the sizes of Cnn6."""
    parts = ARCHITECTURES["panns-cnn6"].build(BuildOptions(num_classes=527))
    state = {**parts.trunk.state_dict(), **{f"fc_audioset.{k}": v for k, v in parts.head.state_dict().items()}}
    state["logmel_extractor.melW"] = state["logmel_extractor.melW"] * 1.01  # so that the file's own are seen to be kept
    for kind in ("real", "imag"):
        state[f"spectrogram_extractor.stft.conv_{kind}.weight"] = torch.zeros(513, 1, 1024)
    content: dict[str, Any] = {"iteration": 600_000, "model": {f"{prefix}{k}": v for k, v in state.items()}}
    if sampler:
        content["sampler"] = {"indexes": np.arange(20), "pointer": 3}
    torch.save(content, tmp_path / "Cnn6_mAP=0.343.pth")
    return tmp_path / "Cnn6_mAP=0.343.pth", state


@pytest.mark.parametrize("sampler", [False, True], ids=["model", "model and sampler"])
@torch.inference_mode()
def test_published_form_loads_whole(tmp_path: Path, sampler: bool) -> None:
    torch.manual_seed(1)
    file, state = published(tmp_path, sampler=sampler)
    model = load_pretrained_model("panns-cnn6", weights=file, device="cpu")
    assert {fate.fate for fate in model.load_report.tensors} == {"matched"}
    assert model.load_report.pretrained_share == 1 and model.domain == "audio"
    for name, tensor in model.trunk.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    waveform = noise(2, 8000)
    embeddings = model.embed(waveform)
    assert embeddings.shape == (2, 512) and torch.equal(model.features(waveform), embeddings)
    logits = embeddings @ state["fc_audioset.weight"].T + state["fc_audioset.bias"]
    torch.testing.assert_close(model(waveform), logits)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "ours.safetensors")
    again = load_pretrained_model("panns-cnn6", weights=tmp_path / "ours.safetensors", device="cpu")
    assert torch.equal(again(waveform), model(waveform))


def test_copies_with_another_prefix_are_understood() -> None:
    state = {"backbone.fc1.weight": torch.ones(1), "fc_audioset.bias": torch.ones(1)}
    assert set(convert_panns(state)) == {"fc1.weight", "fc_audioset.bias"}


def test_labels_are_those_of_audioset() -> None:
    from neurenix.models._labels import label_names

    names = label_names(ARCHITECTURES["panns-cnn14"].weights["audioset"].labels)
    assert len(names) == len(set(names)) == 527
    assert (names[0], names[137], names[526]) == ("Speech", "Music", "Field recording")


def test_bad_files_are_named(tmp_path: Path) -> None:
    file, _ = published(tmp_path)
    record = replace(ARCHITECTURES["panns-cnn6"].weights["audioset"], source=PathSource(str(file)), sha256="0" * 8)
    with pytest.raises(DamagedFileError, match="SHA-256"):
        obtain(record)
    content = torch.load(file, weights_only=True)["model"]
    changed = {
        "swapped": {name.replace("conv_block", "block"): tensor for name, tensor in content.items()},
        "shapes": {name: tensor[:2] if tensor.ndim == 4 else tensor for name, tensor in content.items()},
    }
    for name, state in changed.items():
        torch.save({"model": state}, tmp_path / f"{name}.pth")
        with pytest.raises(WeightsMismatchError, match=r"panns-cnn6"):
            load_pretrained_model("panns-cnn6", weights=tmp_path / f"{name}.pth", device="cpu")
    (tmp_path / "cut.pth").write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(DamagedFileError, match=r"cut\.pth"):
        load_pretrained_model("panns-cnn6", weights=tmp_path / "cut.pth", device="cpu")
    torch.save({"wrong": np.arange(3)}, tmp_path / "arrays.pth")
    with pytest.raises(UnsafeFileError, match=r"arrays\.pth"):
        load_pretrained_model("panns-cnn6", weights=tmp_path / "arrays.pth", device="cpu")


# --- transfer --------------------------------------------------------------------------------------------------


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """Two classes of short tones, low and high, of unequal lengths."""
    generator = np.random.default_rng(0)
    for kind, hertz in (("high", 2500.0), ("low", 300.0)):
        (tmp_path / "tones" / kind).mkdir(parents=True)
        for number in range(6):
            time = np.arange(int(8000 * (0.2 + 0.03 * number))) / 8000
            samples = 0.3 * np.sin(2 * math.pi * hertz * (1 + 0.1 * generator.random()) * time)
            soundfile.write(tmp_path / "tones" / kind / f"{number}.wav", samples, 8000)
    return tmp_path / "tones"


def test_a_fit_learns(tones: Path) -> None:
    tuner = Finetuner(small_model(), num_classes=2, learning_rate=0.02)
    history = tuner.fit(tones, epochs=4, batch_size=6, run=False)
    losses = [epoch["loss"] for epoch in history.epochs]
    assert losses[-1] < losses[0]
    assert tuner.predict_proba(tones).shape == (12, 2)


def test_saved_tuners_give_the_same(tmp_path: Path) -> None:
    file, _ = published(tmp_path)
    sounds = [(noise(6000, seed=place).numpy(), RATE) for place in range(3)]
    tuner = Finetuner(load_pretrained_model("panns-cnn6", weights=file, device="cpu"), num_classes=2)
    tuner.fit(ListDataset(sounds, [0, 1, 0]), epochs=1, batch_size=3, run=False)
    tuner.save(tmp_path / "saved")
    again = Finetuner.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict_proba(ListDataset(sounds)), tuner.predict_proba(ListDataset(sounds)))


def test_every_tuner_finds_its_place() -> None:
    for tuner in (AdapterTuner(small_model(), num_classes=3), LoraTuner(small_model(), num_classes=3)):
        assert any(parameter.requires_grad for parameter in tuner.model.trunk.parameters())
        assert tuner.model(noise(2, 900)).shape == (2, 3)
    tuner = Finetuner(small_model(), num_classes=3, freeze_layers=["bn0", "conv_block1", "conv_block2"])
    assert tuner.model.head.out_features == 3
    with pytest.raises(UnknownNameError, match="conv_block3"):
        Finetuner(small_model(), num_classes=3, freeze_layers=["conv_block4"])
    with pytest.raises(ConfigurationError):
        AdapterTuner(small_model(), num_classes=3, adapter_type="parallel")


def test_frozen_blocks_are_computed_once() -> None:
    """The frozen prefix of a trunk with a front end: the same answers for other batches and other lengths."""
    model = small_model()
    for stage in model.stages[:-1]:
        model.trunk.get_submodule(stage).requires_grad_(False)
    mask = (torch.arange(900) < torch.tensor([900, 500, 700])[:, None]).long()
    batch = {"waveform": noise(3, 900) * mask, "attention_mask": mask}
    cut = split(model, batch)
    stored = cut.prefix(batch)
    assert {tuple(tensor.shape[1:]) for tensor in stored.values()} == {(5,)}
    other = {name: torch.cat([tensor, tensor])[:, :800] for name, tensor in batch.items()}
    torch.testing.assert_close(cut.suffix(cut.prefix(other)), model(other))
