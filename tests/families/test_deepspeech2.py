"""Deep Speech 2: against a transcription of its equations, in the published files' form."""

from __future__ import annotations

import copy
import json
import pickle
import sys
import types
from collections import OrderedDict, defaultdict
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.families.tones import tones
from torch import Tensor, nn

from neurenix.errors import (
    DamagedFileError,
    InputMismatchError,
    NeurenixError,
    UnsafeFileError,
    WeightsMismatchError,
)
from neurenix.models import ARCHITECTURES, PretrainedModel
from neurenix.models._records import BuildOptions
from neurenix.models.audio.deepspeech2 import HEAD, SYMBOLS, DeepSpeechSizes, convert, new_deepspeech2
from neurenix.transfer import AdapterTuner, Finetuner, LoraTuner, load_pretrained_model

SIZES = DeepSpeechSizes(hidden=16, layers=2)
ONE_WAY = DeepSpeechSizes(hidden=12, layers=2, kind="gru", bidirectional=False, context=4)


def seeded(sizes: DeepSpeechSizes = SIZES, **options: Any) -> PretrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = new_deepspeech2(sizes, **options)
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
    return model


def sounds(lengths: tuple[int, ...] = (4000, 2400)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    waveform = torch.zeros(len(lengths), max(lengths))
    mask = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    for row, length in enumerate(lengths):
        waveform[row, :length] = torch.randn(length, generator=generator) * 0.1
        mask[row, :length] = 1
    return {"waveform": waveform, "attention_mask": mask}


def published(model: PretrainedModel) -> dict[str, Tensor]:
    """The model's tensors under the names of a published file."""
    state = {name.removeprefix("trunk.").removeprefix("head."): tensor for name, tensor in model.state_dict().items()}
    state.pop("vocabulary")
    return state


# --- the equations ----------------------------------------------------------------------------------------------------


def spectrogram(sound: np.ndarray) -> np.ndarray:
    """(samples,) -> (161, frames) by a Fourier transform of each frame, as librosa does with its defaults of 2020."""
    around = np.pad(sound.astype(np.float64), 160, mode="reflect")
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(320) / 320)
    frames = [np.abs(np.fft.rfft(around[start : start + 320] * window)) for start in range(0, len(around) - 319, 160)]
    logarithms = np.log1p(np.stack(frames, 1))
    return (logarithms - logarithms.mean()) / logarithms.std(ddof=1)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def lstm(series: np.ndarray, state: dict[str, np.ndarray], name: str, suffix: str) -> np.ndarray:
    """Hochreiter and Schmidhuber's equations, a step at a time. (frames, width) -> (frames, hidden)."""
    into, across = state[f"{name}.weight_ih_l0{suffix}"], state[f"{name}.weight_hh_l0{suffix}"]
    bias = state[f"{name}.bias_ih_l0{suffix}"] + state[f"{name}.bias_hh_l0{suffix}"]
    hidden = cell = np.zeros(across.shape[1])
    found = []
    for frame in series:
        enter, forget, new, out = np.split(into @ frame + across @ hidden + bias, 4)
        cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
        hidden = sigmoid(out) * np.tanh(cell)
        found.append(hidden)
    return np.stack(found)


def gru(series: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Cho et al.'s equations with the reset after the product, as torch has them."""
    into, across = state[f"{name}.weight_ih_l0"], state[f"{name}.weight_hh_l0"]
    hidden, found = np.zeros(across.shape[1]), []
    for frame in series:
        reset, keep, new = np.split(into @ frame + state[f"{name}.bias_ih_l0"], 3)
        reset_, keep_, new_ = np.split(across @ hidden + state[f"{name}.bias_hh_l0"], 3)
        update = sigmoid(keep + keep_)
        hidden = (1 - update) * np.tanh(new + sigmoid(reset + reset_) * new_) + update * hidden
        found.append(hidden)
    return np.stack(found)


def normed(values: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Over the last axis."""
    scale = state[f"{name}.weight"] / np.sqrt(state[f"{name}.running_var"] + 1e-5)
    return (values - state[f"{name}.running_mean"]) * scale + state[f"{name}.bias"]


def convolved(maps: np.ndarray, kernel: np.ndarray, bias: np.ndarray, stride: int, padding: tuple[int, int]) -> Any:
    """(channels, bands, frames) by the definition: a product at each place. Bands are halved, frames by `stride`."""
    rows, columns = padding
    maps = np.pad(maps, ((0, 0), (rows, rows), (columns, columns)))
    high, wide = kernel.shape[2:]
    places = range(0, maps.shape[1] - high + 1, 2), range(0, maps.shape[2] - wide + 1, stride)
    return np.stack(
        [
            np.stack([np.tensordot(kernel, maps[:, y : y + high, x : x + wide], 3) + bias for x in places[1]], 1)
            for y in places[0]
        ],
        1,
    )


def transcribed(sound: np.ndarray, state: dict[str, np.ndarray], sizes: DeepSpeechSizes) -> np.ndarray:
    """Logits (frames, symbols) of one sound."""
    maps = spectrogram(sound)[None]
    for layer, norm, stride, padding in ((0, 1, 2, (20, 5)), (3, 4, 1, (10, 5))):
        name = f"conv.seq_module.{layer}"
        maps = convolved(maps, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding)
        maps = normed(maps.transpose(1, 2, 0), state, f"conv.seq_module.{norm}").transpose(2, 0, 1).clip(0, 20)
    series = maps.reshape(-1, maps.shape[2]).T
    for layer in range(sizes.layers):
        if layer:
            series = normed(series, state, f"rnns.{layer}.batch_norm.module")
        if sizes.bidirectional:
            back = lstm(series[::-1], state, f"rnns.{layer}.rnn", "_reverse")[::-1]
            series = lstm(series, state, f"rnns.{layer}.rnn", "") + back
        else:
            series = gru(series, state, f"rnns.{layer}.rnn")
    if not sizes.bidirectional:
        filters = state["lookahead.0.conv.weight"][:, 0]
        ahead = np.pad(series, ((0, sizes.context - 1), (0, 0)))
        looked = [(filters.T * ahead[t : t + sizes.context]).sum(0) for t in range(len(series))]
        series = np.stack(looked).clip(0, 20)
    return normed(series, state, "fc.0.module.0") @ state[f"{HEAD}.weight"].T


@torch.inference_mode()
@pytest.mark.parametrize("sizes", [SIZES, ONE_WAY], ids=["both ways", "one way"])
def test_logits_are_those_of_the_equations_for_each_sound_of_a_batch(sizes: DeepSpeechSizes) -> None:
    model, inputs = seeded(sizes), sounds()
    state = {name: tensor.double().numpy() for name, tensor in published(model).items()}
    logits = model(inputs)
    for row, length in enumerate((4000, 2400)):
        wanted = transcribed(inputs["waveform"][row, :length].numpy(), state, sizes)
        assert len(wanted) == length // 160 // 2 + 1
        np.testing.assert_allclose(logits[row, : len(wanted)].numpy(), wanted, atol=2e-4)
    alone = model(inputs["waveform"][1:, :2400])[0]
    torch.testing.assert_close(logits[1, : len(alone)], alone, atol=1e-5, rtol=1e-5)
    assert model.trunk.feature_mask(inputs).sum(1).tolist() == [13, 8]
    assert not model.features(inputs)[1, 8:].any()


@torch.inference_mode()
def test_silence_and_what_is_no_sound() -> None:
    model = seeded()
    assert bool(model(torch.zeros(1, 320)).isfinite().all())
    with pytest.raises(InputMismatchError, match="needs 320"):
        model(torch.zeros(1, 319))


# --- the published network --------------------------------------------------------------------------------------------


def test_parameters_and_names_are_the_published_ones() -> None:
    with torch.device("meta"):
        parts = ARCHITECTURES["deepspeech2"].build(BuildOptions(num_classes=29))
    assert parts.head is not None
    count = sum(parameter.numel() for part in (parts.trunk, parts.head) for parameter in part.parameters())
    convolutions = 32 * 41 * 11 + 32 + 32 * 32 * 21 * 11 + 32 + 2 * 64
    layers = [2 * 4 * 1024 * (width + 1024 + 2) for width in (1312, *[1024] * 4)]
    assert count == convolutions + sum(layers) + 5 * 2048 + 29 * 1024 == 86_618_400
    names = {*parts.trunk.state_dict(), *(name for name in parts.head.state_dict() if name != "vocabulary")}
    gates = [
        f"{kind}_{side}_l0{way}" for kind in ("weight", "bias") for side in ("ih", "hh") for way in ("", "_reverse")
    ]
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    wanted = {f"conv.seq_module.{layer}.{kind}" for layer in (0, 3) for kind in ("weight", "bias")}
    wanted |= {f"conv.seq_module.{layer}.{kind}" for layer in (1, 4) for kind in norm}
    wanted |= {f"rnns.{layer}.rnn.{gate}" for layer in range(5) for gate in gates}
    wanted |= {f"rnns.{layer}.batch_norm.module.{kind}" for layer in range(1, 5) for kind in norm}
    wanted |= {f"fc.0.module.0.{kind}" for kind in norm} | {f"{HEAD}.weight"}
    assert names == wanted and "lookahead.0.conv.weight" in seeded(ONE_WAY).trunk.state_dict()
    assert "".join(SYMBOLS) == "_'ABCDEFGHIJKLMNOPQRSTUVWXYZ "


def write_version_2(file: Path, model: PretrainedModel, **changed: Any) -> Path:
    content = {
        "version": "0.0.1",
        "hidden_size": 16,
        "hidden_layers": 2,
        "rnn_type": "lstm",
        "audio_conf": {"sample_rate": 16_000, "window_size": 0.02, "window_stride": 0.01, "window": "hamming"},
        "labels": list(model.head.symbols),
        "state_dict": OrderedDict(published(model)),
        "bidirectional": True,
        "optim_dict": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 3e-4}]},
    } | changed
    torch.save(content, file)
    return file


def test_a_file_of_version_2_loads_whole(tmp_path: Path) -> None:
    for name, sizes in (("both", SIZES), ("one", ONE_WAY)):
        made = seeded(sizes, symbols="_abc ")
        file = write_version_2(tmp_path / f"{name}.pth", made)
        model = load_pretrained_model("deepspeech2", weights=file, device="cpu")
        assert {fate.fate for fate in model.load_report.tensors} == {"matched"}
        assert model.head.symbols == tuple("_abc ") and model.stages[-1] == "fc.0.module.0"
        with torch.inference_mode():
            assert torch.equal(model(sounds()), made(sounds()))
    torch.save(
        content := torch.load(file, weights_only=True), tmp_path / "old.pth", _use_new_zipfile_serialization=False
    )
    assert len(content["state_dict"]) == len(published(made))
    old = load_pretrained_model("deepspeech2", weights=tmp_path / "old.pth", device="cpu")
    assert torch.equal(old.trunk.window, made.trunk.window) and old.head.symbols == tuple("_abc ")


# --- Lightning's files of version 3: classes of packages that are not installed ---------------------------------------


def foreign(module: str, name: str, **content: Any) -> Any:
    """A class under the name of a package that is not there, while a file is being written."""
    parts = module.split(".")
    for depth in range(len(parts)):
        parent = ".".join(parts[: depth + 1])
        sys.modules.setdefault(parent, types.ModuleType(parent))
    holder = sys.modules[module]
    made = content.pop("made", None) or type(name, (), content)
    made.__module__, made.__qualname__ = module, name
    setattr(holder, name, made)
    return made


def write_version_3(file: Path, model: PretrainedModel, *, window: str = "hamming", **changed: Any) -> Path:
    """With omegaconf's nodes, their metadata, enumerations and a callback's class as key, as such files are written."""
    before = set(sys.modules)
    try:
        windows = foreign("deepspeech_pytorch.enums", "W", made=Enum("W", {"hamming": "hamming", "hann": "hann"}))
        kinds = foreign("deepspeech_pytorch.enums", "K", made=Enum("K", {"lstm": nn.LSTM}))
        settings, node, metadata, config, callback = (
            foreign(module, name)
            for module, name in (
                ("deepspeech_pytorch.configs.train_config", "SpectConfig"),
                ("omegaconf.nodes", "AnyNode"),
                ("omegaconf.base", "ContainerMetadata"),
                ("omegaconf.dictconfig", "DictConfig"),
                ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
            )
        )

        def noted(kind: Any, **state: Any) -> Any:
            made = kind()
            made.__dict__.update(state)
            return made

        def configured(kind: Any, **values: Any) -> Any:
            about = noted(metadata, object_type=kind, resolver_cache=defaultdict(dict), key_type=str, element_type=int)
            nodes = {name: noted(node, _val=value, _metadata=about) for name, value in values.items()}
            return noted(config, _content=nodes, _metadata=about, _parent=None)

        heard = {"sample_rate": 16_000, "window_size": 0.02, "window_stride": 0.01, "window": windows[window]}
        content = {
            "epoch": 11,
            "pytorch-lightning_version": "1.1.0",
            "callbacks": {callback: {"best_model_score": torch.tensor(0.1)}},
            "state_dict": OrderedDict(published(model)),
            "hparams_name": "kwargs",
            "hyper_parameters": {
                "labels": list(model.head.symbols),
                "model_cfg": configured(settings, rnn_type=kinds.lstm, hidden_size=16, hidden_layers=2),
                "precision": 16,
                "spect_cfg": configured(settings, **heard),
            },
        } | changed
        torch.save(content, file)
    finally:
        for module in set(sys.modules) - before:
            if module.split(".")[0] in ("deepspeech_pytorch", "omegaconf", "pytorch_lightning"):
                del sys.modules[module]
    return file


def test_a_file_of_version_3_loads_without_its_classes(tmp_path: Path) -> None:
    made = seeded()
    file = write_version_3(tmp_path / "librispeech_pretrained_v3.ckpt", made)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)
    allowed = set(torch.serialization.get_safe_globals())
    model = load_pretrained_model("deepspeech2", weights=file, device="cpu")
    assert set(torch.serialization.get_safe_globals()) == allowed
    assert not {"omegaconf", "deepspeech_pytorch"} & set(sys.modules)
    assert {fate.fate for fate in model.load_report.tensors} == {"matched"} and model.head.symbols == SYMBOLS
    with torch.inference_mode():
        assert torch.equal(model(sounds()), made(sounds()))
    with pytest.raises(WeightsMismatchError, match="'window': 'hann'"):
        load_pretrained_model(
            "deepspeech2", weights=write_version_3(tmp_path / "hann.ckpt", made, window="hann"), device="cpu"
        )


class Runs:
    """Calls something when it is read."""

    def __init__(self, call: Any, *given: Any) -> None:
        self.call, self.given = call, given

    def __reduce__(self) -> Any:
        return self.call, self.given


HOSTILE: dict[str, tuple[Any, ...]] = {
    "eval": (eval, "1/0"),
    "exec": (exec, "raise SystemExit"),
    "import": (__import__, "antigravity"),
    "open": (open, "never", "w"),
    "getattr": (getattr, nn.LSTM, "__init__"),
    "print": (print, "never"),
    "path": (Path.touch, Path("never")),
    "loads": (pickle.loads, b"N."),
    "numpy": (np.load, "never"),
    "torch": (torch.load, "never"),
    "hub": (torch.hub.load, "a/b", "c"),
    "module": (nn.Linear, 2, 2),
}


@pytest.mark.parametrize("place", ["state_dict", "hyper_parameters", "beside"])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_runs_when_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    made, runs = seeded(), Runs(*HOSTILE[name])
    content: dict[str, Any] = {
        "state_dict": {"state_dict": {**published(made), "x": runs}},
        "hyper_parameters": {"hyper_parameters": {"labels": runs}},
        "beside": {"callbacks": [runs]},
    }[place]
    file = write_version_3(tmp_path / "runs.ckpt", made, **content)
    with pytest.raises(UnsafeFileError, match=r"runs\.ckpt"):
        load_pretrained_model("deepspeech2", weights=file, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["runs.ckpt"] and "antigravity" not in sys.modules


def test_files_that_are_no_such_network(tmp_path: Path) -> None:
    made = seeded()
    state = published(made)

    def refused(kind: type[NeurenixError], message: str, **changed: Any) -> None:
        file = write_version_2(tmp_path / "wrong.pth", made, **changed)
        with pytest.raises(kind, match=message):
            load_pretrained_model("deepspeech2", weights=file, device="cpu")

    refused(WeightsMismatchError, "no named tensors", state_dict={"epoch": 3})
    refused(WeightsMismatchError, "version 1", state_dict={f"x.{name}": tensor for name, tensor in state.items()})
    refused(WeightsMismatchError, "one of them '_'", labels=["a", "b"])
    refused(WeightsMismatchError, "one of them '_'", labels={"_": 1})
    refused(WeightsMismatchError, "cannot be read", labels=["_", "a", "a"])
    refused(WeightsMismatchError, "hears spectrograms", audio_conf={"sample_rate": 8_000})
    refused(WeightsMismatchError, "28 symbols", labels=None, state_dict=state | {f"{HEAD}.weight": torch.ones(28, 16)})
    refused(WeightsMismatchError, "no LSTM", state_dict=state | {"rnns.0.rnn.weight_hh_l0": torch.ones(80, 16)})
    gap = {name.replace("rnns.1.", "rnns.1000000000."): tensor for name, tensor in state.items()}
    refused(WeightsMismatchError, "recurrent layers named", state_dict=gap)
    narrow = {name: tensor[..., :7] if name.endswith("weight_ih_l0") else tensor for name, tensor in state.items()}
    refused(WeightsMismatchError, "in the file", state_dict=narrow)
    whole = write_version_3(tmp_path / "cut.ckpt", made).read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedFileError, match=r"cut\.ckpt"):
        load_pretrained_model("deepspeech2", weights=tmp_path / "cut.ckpt", device="cpu")


def test_names_are_left_alone_that_are_ours_already(tmp_path: Path) -> None:
    model = seeded()
    assert convert(dict(model.state_dict())).keys() == model.state_dict().keys()
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, tmp_path / "ours.safetensors")
    again = load_pretrained_model("deepspeech2", weights=tmp_path / "ours.safetensors", device="cpu")
    assert torch.equal(again(sounds()), model(sounds()))


# --- tuning -----------------------------------------------------------------------------------------------------------


def test_it_learns_to_write_and_keeps_its_symbols(tmp_path: Path) -> None:
    file = write_version_2(tmp_path / "base.pth", seeded(replace(SIZES, layers=1)))
    model = load_pretrained_model("deepspeech2", weights=file, device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.replace_head(model.head.for_symbols("_ab"))
    texts = ["ab", "ba", "aa", "bb"]
    data = [(tones(text), model.head.encode(text)) for text in texts]
    tuner = Finetuner(model, freeze_layers=["conv"], learning_rate=1e-2, precision="fp32")
    history = tuner.fit(data, batch_size=4, epochs=60, run=False)
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert tuner.predict([sound for sound, _ in data]) == texts
    tuner.save(tmp_path / "saved")
    again = Finetuner.load(tmp_path / "saved", device="cpu")
    assert again.model.head.symbols == tuple("_ab") and again.predict([tones("ba")]) == ["ba"]


def test_tuners_find_their_places() -> None:
    model = seeded()
    for tuner in (
        Finetuner(model, num_classes=3, freeze_layers=["conv", "rnns.0"]),
        AdapterTuner(model, num_classes=3),
        LoraTuner(model, num_classes=3),
    ):
        assert tuner.model(sounds()).shape == (2, 3)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(sounds()), model(sounds()))
    assert json.dumps(model.preprocess.to_json())
