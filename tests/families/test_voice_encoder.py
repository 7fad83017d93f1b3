"""The voice encoder against its equations in numpy, the published file, and files in its form.

Files under the published names have the published sizes; where sizes do not matter the LSTM is narrow.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from neurenix.data import ListDataset
from neurenix.errors import (
    ConfigurationError,
    DamagedFileError,
    InputMismatchError,
    UnsafeFileError,
    WeightsMismatchError,
    WeightsNotFoundError,
)
from neurenix.models import ARCHITECTURES, BuildOptions, PathSource
from neurenix.models.audio import _voice_encoder_network as network
from neurenix.models.sources import obtain
from neurenix.transfer import AdapterTuner, Finetuner, LoraTuner, PromptTuner, load_pretrained_model

RATE = 16_000
LAYER = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
NAMES = {*(f"lstm.{part}_l{layer}" for part in LAYER for layer in range(3)), "linear.weight", "linear.bias"}
REAL = ARCHITECTURES["voice-encoder"].weights["resemblyzer"]
needs_the_package = pytest.mark.skipif(
    importlib.util.find_spec("resemblyzer") is None, reason="pip install --no-deps Resemblyzer==0.1.4"
)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_HIDDEN", 8)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_state() -> dict[str, Tensor]:
    """Numbers under the published names, large enough that vectors of different sounds are far apart."""
    generator = torch.Generator().manual_seed(3)
    state = {
        name: torch.randn(tensor.shape, generator=generator) / tensor.shape[-1] ** 0.5
        for name, tensor in network.VoiceEncoder().state_dict().items()
    }
    state["lstm.weight_ih_l0"] *= 100  # powers are small numbers
    return state


def published(tmp_path: Path, state: dict[str, Tensor] | None = None) -> Path:
    """A file as the published one is: the model's state with the numbers of the loss, beside those of the training."""
    loss = {"similarity_weight": torch.tensor([10.0]), "similarity_bias": torch.tensor([-5.0])}
    moments = {"step": 7, "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}
    content = {
        "step": 1_564_501,
        "model_state": {**loss, **(random_state() if state is None else state)},
        "optimizer_state": {
            "state": {0: moments},
            "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0]}],
        },
    }
    torch.save(content, tmp_path / "encoder.pt")
    return tmp_path / "encoder.pt"


# --- the equations ---------------------------------------------------------------------------------------------


def slices_by_the_rule(samples: int) -> list[int]:
    """First frames of a sound's windows, as published: 1.3 for each second, the last one three quarters full."""
    frames = math.ceil((samples + 1) / 160)
    step = round(RATE / 1.3 / 160)
    starts = list(range(0, max(1, frames - 160 + step + 1), step))
    covered = (samples - starts[-1] * 160) / (160 * 160)
    return starts[:-1] if covered < 0.75 and len(starts) > 1 else starts


def filters_by_numpy() -> np.ndarray:
    """(201, 40): triangles of area 1, equally spaced on a scale that is linear up to 1 kHz and logarithmic above."""
    top = 15 + 27 * math.log(8) / math.log(6.4)
    edges = [mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27) for mel in np.linspace(0, top, 42)]
    filters = np.zeros((201, 40))
    for place in range(201):
        for band in range(40):
            left, middle, right = edges[band : band + 3]
            rising, falling = (place * 40 - left) / (middle - left), (right - place * 40) / (right - middle)
            filters[place, band] = max(0.0, min(rising, falling)) * 2 / (right - left)
    return filters


def mels_by_numpy(waveform: np.ndarray) -> np.ndarray:
    """(windows, 160, 40): powers of 25 ms around every tenth millisecond, of a sound of -30 dB or more."""
    decibels = 20 * math.log10(math.sqrt(np.mean(waveform**2)))
    waveform = waveform * 10 ** (max(0.0, -30 - decibels) / 20)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    starts = slices_by_the_rule(len(waveform))
    around = np.concatenate([np.zeros(200), waveform, np.zeros(160 * (starts[-1] + 163))])
    frames = [around[160 * frame : 160 * frame + 400] * window for frame in range(starts[-1] + 160)]
    powers = np.abs(np.fft.rfft(np.stack(frames))) ** 2 @ filters_by_numpy()
    return np.stack([powers[start : start + 160] for start in starts])


def vector_by_numpy(frames: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
    """(160, 40) -> (256,): equation 4 on the last state of three LSTM layers, then cut off at zero and of length 1."""
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    sequence = frames
    for layer in range(3):
        to_inputs, to_state, bias, other = (state[f"lstm.{part}_l{layer}"] for part in LAYER)
        hidden, cell = np.zeros(to_state.shape[1]), np.zeros(to_state.shape[1])
        states = []
        for frame in sequence:
            gates = to_inputs @ frame + to_state @ hidden + bias + other
            enter, forget, new, leave = np.split(gates, 4)
            cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
            hidden = sigmoid(leave) * np.tanh(cell)
            states.append(hidden)
        sequence = np.stack(states)
    vector = np.maximum(state["linear.weight"] @ sequence[-1] + state["linear.bias"], 0)
    return vector / math.sqrt((vector**2).sum())


def check_against_numpy(model: Any, waveform: Tensor) -> None:
    state = {name: tensor.double().numpy() for name, tensor in model.trunk.state_dict().items()}
    frames = mels_by_numpy(waveform[0].double().numpy())
    ours = model.trunk.mels(waveform, None)[0].double().numpy()
    np.testing.assert_allclose(ours, frames, rtol=1e-3, atol=1e-6 * frames.max())
    expected = np.stack([vector_by_numpy(window, state) for window in frames])
    found = model.features(waveform)[0].double().numpy()
    partials = found / np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(partials, expected, atol=1e-4)
    mean = expected.mean(0)
    np.testing.assert_allclose(model.embed(waveform)[0].double().numpy(), mean / np.linalg.norm(mean), atol=1e-4)


@torch.inference_mode()
def test_equal_to_the_equations(tmp_path: Path) -> None:
    model = load_pretrained_model("voice-encoder", weights=published(tmp_path), device="cpu")
    for waveform in (noise(1, 32_500), 0.03 * noise(1, 20_011)):
        check_against_numpy(model, waveform)
    loud, other = model(noise(1, 32_500)), model(noise(1, 32_500, seed=1) * torch.linspace(0, 1, 32_500))
    assert float((loud - other).abs().max()) > 0.02  # far above the tolerance: with these numbers, sounds do differ


def test_windows_are_the_published_ones() -> None:
    edges = [place for k in range(12) for place in range(19_200 + 12_320 * k - 2, 19_200 + 12_320 * k + 3)]
    lengths = [*range(1, 200_000, 53), *edges]
    assert [network.windows_of(samples) for samples in lengths] == [len(slices_by_the_rule(n)) for n in lengths]


@pytest.mark.usefixtures("narrow")
@torch.inference_mode()
def test_a_sound_has_its_own_vector_in_every_batch() -> None:
    model = load_pretrained_model("voice-encoder", weights=None, device="cpu")
    lengths = [60_000, 40_000, 31_520, 31_519, 4000, 1]
    mask = (torch.arange(60_000) < torch.tensor(lengths)[:, None]).long()
    scales = torch.tensor([1.0, 0.01, 3.0, 0.2, 1e-3, 1.0])[:, None]
    waveforms = noise(6, 60_000) * scales
    batch = {"waveform": waveforms, "attention_mask": mask}  # what lies behind a sound's end is not read
    assert model.trunk.feature_mask(batch).sum(1).tolist() == [4, 2, 2, 1, 1, 1]
    assert model.trunk.feature_mask(waveforms) is None
    found = model(batch)
    assert found.shape == (6, 256) and model.features(batch).shape == (6, 4, 256)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(6))
    for place, length in enumerate(lengths):
        torch.testing.assert_close(found[place], model(waveforms[place : place + 1, :length])[0])
    louder = model(batch | {"waveform": waveforms * torch.tensor([1, 3, 1, 1, 30, 1])[:, None]})
    torch.testing.assert_close(louder, found)  # below -30 dB loudness is of no account
    assert bool(model(torch.zeros(1, 30_000)).isfinite().all())


@torch.inference_mode()
def test_half_precision_runs_on_every_processor(tmp_path: Path) -> None:
    model = load_pretrained_model("voice-encoder", weights=published(tmp_path), device="cpu")
    waveforms = noise(2, 33_000)
    expected = model(waveforms)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = model(waveforms)
    halved = model.to(torch.bfloat16)(waveforms.bfloat16()).float()
    for found, least in ((autocast, 0.9999), (halved, 0.999)):
        assert float(torch.cosine_similarity(found, expected).min()) > least


@pytest.mark.usefixtures("narrow")
def test_wrong_inputs_are_named() -> None:
    model = load_pretrained_model("voice-encoder", weights=None, device="cpu")
    for wrong in (torch.zeros(1, 160, 40), torch.zeros(1, 9000, dtype=torch.long), {"input_ids": torch.zeros(1, 9)}):
        with pytest.raises(InputMismatchError, match="waveforms"):
            model(wrong)
    with pytest.raises(InputMismatchError, match="needs 1"):
        model(torch.zeros(1, 0))
    prepared = model.preprocess((torch.zeros(44_100), 44_100))
    assert prepared["waveform"].shape == (16_000,)


# --- published sizes and names ---------------------------------------------------------------------------------


def test_published_sizes() -> None:
    with torch.device("meta"):
        parts = ARCHITECTURES["voice-encoder"].build(BuildOptions(num_classes=0))
    shapes = {name: tuple(tensor.shape) for name, tensor in parts.trunk.state_dict().items()}
    assert set(shapes) == NAMES and shapes["lstm.weight_ih_l0"] == (1024, 40)
    assert sum(math.prod(shape) for shape in shapes.values()) == 1_423_616
    assert parts.head is None and parts.feature_size == 256


def test_it_has_the_names_that_people_use() -> None:
    assert {ARCHITECTURES.canonical(name) for name in ("voice_encoder", "Resemblyzer", "GE2E")} == {"voice-encoder"}


# --- files -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("narrow")
@torch.inference_mode()
def test_files_load_whole_and_come_back(tmp_path: Path) -> None:
    state = random_state()
    model = load_pretrained_model("resemblyzer", weights=published(tmp_path, state), device="cpu")
    assert {fate.fate for fate in model.load_report.tensors} == {"matched"}
    assert {fate.name for fate in model.load_report.tensors} == {f"trunk.{name}" for name in NAMES}
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.trunk.state_dict().items())
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "ours.safetensors")
    again = load_pretrained_model("ge2e", weights=tmp_path / "ours.safetensors", device="cpu")
    waveform = noise(1, 30_000)
    assert torch.equal(again(waveform), model(waveform))


@pytest.mark.usefixtures("narrow")
def test_bad_files_are_named(tmp_path: Path) -> None:
    state = random_state()
    file = published(tmp_path, state)
    with pytest.raises(DamagedFileError, match="SHA-256"):
        obtain(replace(REAL, source=PathSource(str(file))))
    (tmp_path / "cut.pt").write_bytes(file.read_bytes()[:2000])
    with pytest.raises(DamagedFileError, match=r"cut\.pt"):
        load_pretrained_model("voice-encoder", weights=tmp_path / "cut.pt", device="cpu")
    swapped = {name.replace("lstm", "gru"): tensor for name, tensor in state.items()}
    reshaped = {name: tensor.flatten()[1:] for name, tensor in state.items()}
    for content in (swapped, reshaped):
        with pytest.raises(WeightsMismatchError, match="voice-encoder"):
            load_pretrained_model("voice-encoder", weights=published(tmp_path, content), device="cpu")
    torch.save({"model_state": state, "folder": Path("/")}, tmp_path / "code.pt")
    with pytest.raises(UnsafeFileError, match=r"code\.pt"):
        load_pretrained_model("voice-encoder", weights=tmp_path / "code.pt", device="cpu")
    with pytest.raises(WeightsNotFoundError, match="pip install no-such-package"):
        obtain(replace(REAL, source=replace(REAL.source, distribution="no-such-package", package="no_such_package")))


# --- the published weights -------------------------------------------------------------------------------------


VOWELS = ((700, 1200), (300, 2200), (350, 800), (500, 1800), (650, 1000), (450, 1500))


def voice(pitch: float, tract: float, seconds: float, seed: int) -> Tensor:
    """(1, samples): pulses of about `pitch` Hz through the resonances of a vocal tract, four vowels a second.

    tract: by how much the tract's resonances lie higher than a long one's. seed: of the order of the vowels.
    """
    samples = int(seconds * RATE)
    time = np.arange(samples) / RATE
    order = np.random.default_rng(seed).integers(0, len(VOWELS), math.ceil(4 * seconds))
    vowels = np.repeat(np.array(VOWELS)[order], RATE // 4, axis=0)[:samples] * tract
    smooth = np.stack([np.convolve(column, np.ones(800) / 800, mode="same") for column in vowels.T])
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * time + seed))) / RATE
    sound = np.zeros(samples)
    for number in range(1, int(6500 / pitch)):
        peaks = [1 / (1 + ((number * pitch - middle) / 60) ** 2) for middle in (*smooth, 2600 * tract, 3500 * tract)]
        sound += (sum(peaks) + 0.01) / number * np.sin(number * phase)
    loudness = np.clip(0.6 + 0.6 * np.sin(2 * np.pi * 4 * time), 0, 1)
    return torch.from_numpy(0.05 * sound * loudness).float()[None]


@pytest.mark.real_weights
@needs_the_package
@torch.inference_mode()
def test_the_published_file_gives_what_was_published() -> None:
    """Every tensor finds its place, and vectors are those of the equations, by numpy and by torch's LSTM."""
    model = load_pretrained_model("voice-encoder", device="cpu")
    assert {fate.fate for fate in model.load_report.tensors} == {"matched"} and len(model.load_report.tensors) == 14
    sound = voice(120, 1.0, 3.13, 0)
    check_against_numpy(model, sound)
    path = Path(next(iter(importlib.util.find_spec("resemblyzer").submodule_search_locations))) / "pretrained.pt"
    content = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    assert content.keys() - NAMES == {"similarity_weight", "similarity_bias"}
    lstm, linear = nn.LSTM(40, 256, 3, batch_first=True), nn.Linear(256, 256)
    lstm.load_state_dict({name.removeprefix("lstm."): content[name] for name in NAMES if name.startswith("lstm.")})
    linear.load_state_dict({name: content[f"linear.{name}"] for name in ("weight", "bias")})
    _, (hidden, _) = lstm(torch.from_numpy(mels_by_numpy(sound[0].double().numpy())).float())
    partials = linear(hidden[-1]).relu()
    mean = (partials / partials.norm(dim=1, keepdim=True)).mean(0)
    torch.testing.assert_close(model.embed(sound)[0], mean / mean.norm(), rtol=0, atol=2e-5)


@pytest.mark.real_weights
@needs_the_package
@torch.inference_mode()
def test_halves_of_one_sound_are_nearer_than_another_voice() -> None:
    model = load_pretrained_model("voice-encoder", device="cpu")
    sounds = [voice(105, 1.0, 8, 0), voice(215, 1.17, 8, 1)]
    vectors = torch.cat([model.embed(half) for sound in sounds for half in sound.chunk(2, 1)])
    cosines = vectors @ vectors.T
    assert min(cosines[0, 1], cosines[2, 3]) > cosines[:2, 2:].max() + 0.1


# --- transfer --------------------------------------------------------------------------------------------------


def tones() -> ListDataset:
    """Six sounds of two classes, each of one or two windows."""
    sounds: list[Any] = []
    for number in range(6):
        time = np.arange(RATE * (1 + number % 2) + 4000) / RATE
        sounds.append((0.3 * np.sin(2 * math.pi * (400, 3000)[number % 2] * time), RATE))
    return ListDataset(sounds, [0, 1] * 3)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("frozen", [[], ["lstm"]], ids=str)
def test_a_fit_learns_and_comes_back_as_it_was(frozen: list[str], tmp_path: Path) -> None:
    model = load_pretrained_model("voice-encoder", weights=published(tmp_path), device="cpu")
    before = {name: tensor.clone() for name, tensor in model.trunk.state_dict().items()}
    tuner = Finetuner(model, num_classes=2, freeze_layers=frozen, augmented_views=1)
    history = tuner.fit(tones(), epochs=3, batch_size=6, run=False)
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    moved = {name for name, tensor in tuner.model.trunk.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and all(name.startswith("linear.") for name in moved) == bool(frozen)
    tuner.save(tmp_path / "saved")
    again = Finetuner.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict_proba(tones()), tuner.predict_proba(tones()))


@pytest.mark.usefixtures("narrow")
def test_one_step_lowers_the_loss() -> None:
    model = load_pretrained_model("voice-encoder", weights=None, device="cpu")
    model.replace_head(nn.Linear(256, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    waveforms, targets = noise(4, 26_000), torch.tensor([0, 1, 0, 1])
    losses = []
    for _ in range(2):
        loss = nn.functional.cross_entropy(model(waveforms), targets)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.usefixtures("narrow")
def test_low_rank_updates_stand_beside_its_linear_layer() -> None:
    tuned = LoraTuner(load_pretrained_model("voice-encoder", weights=None, device="cpu"), num_classes=3)
    learned = {name for name, parameter in tuned.model.trunk.named_parameters() if parameter.requires_grad}
    assert learned and all(name.startswith("linear.lora_") for name in learned)
    assert tuned.model(noise(2, 9000)).shape == (2, 3)
    with pytest.raises(ConfigurationError, match="no linear layer"):
        LoraTuner(load_pretrained_model("ge2e", weights=None, device="cpu"), num_classes=3, target_layers="lstm")


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("tuner", [AdapterTuner, PromptTuner])
def test_an_lstm_has_no_blocks(tuner: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"no blocks .* LoraTuner or Finetuner"):
        tuner(load_pretrained_model("voice-encoder", weights=None, device="cpu"), num_classes=3)
