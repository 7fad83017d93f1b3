"""On a GPU: what CI, which has none, cannot see. `NEURENIX_TEST_DEVICE=cuda make test` puts other tests there too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from neurenix.data import ArrayDataset, collate
from neurenix.devices import Arriving, is_exact, resolve_device, resolve_precision
from neurenix.errors import ConfigurationError
from neurenix.training.prefix.store import Column, RowStore
from neurenix.transfer import DomainAdapter, FeatureExtractor, Finetuner, LoraTuner, load_pretrained_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
CUDA = torch.device("cuda")
ONCE = "the frozen layers run once for each of"


def images(count: int = 96, side: int = 48, seed: int = 0) -> ArrayDataset:
    """Noise in which one of three channels is brighter, and says the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    pixels = 0.4 * torch.randn(count, 3, side, side, generator=generator)
    pixels[torch.arange(count), labels] += 0.5
    return ArrayDataset(pixels, labels)


def resnet() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return load_pretrained_model("resnet18", weights=None, input_shape=(48, 48, 3))


def place(model: nn.Module) -> str:
    return next(model.parameters()).device.type


def test_auto_is_the_gpu_and_a_missing_one_is_named() -> None:
    assert resolve_device("auto") == CUDA and place(resnet()) == "cuda"
    with pytest.raises(ConfigurationError, match="cuda:99.*cuda:0"):
        resolve_device("cuda:99")


def test_a_new_precision_is_taken_where_it_is_faster() -> None:
    fast = torch.cuda.get_device_capability()[0] >= 8
    assert resolve_precision("auto", CUDA) == ("bf16" if fast else "fp32")
    assert is_exact("auto", CUDA) is not fast


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("part", ["head", "last stage"])
def test_frozen_layers_run_once_and_their_rows_stay_on_the_gpu(
    part: str, precision: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tuners = []
    for use in ("always", "never"):
        model = resnet()
        frozen = {"strategy": "head"} if part == "head" else {"freeze_layers": ["conv1", "bn1", "layer1", "layer2"]}
        options: dict[str, Any] = {
            "precision": precision,
            "backend": "eager",
            "optimizer": "sgd",
            "learning_rate": 0.02,
        }
        tuner = Finetuner(model, 3, frozen_prefix=use, **frozen, **options)
        tuner.fit(images(), epochs=3, run=False)
        tuners.append(tuner)
        said = capsys.readouterr().out
        assert (ONCE in said and "in the GPU's memory" in said) is (use == "always"), said
    stored, ordinary = ([epoch["loss"] for epoch in tuner.history.epochs] for tuner in tuners)
    print(f"largest difference: {max(abs(one - other) for one, other in zip(stored, ordinary, strict=True)):.1e}")
    assert stored == pytest.approx(ordinary, abs=2e-3 if precision == "fp32" else 3e-2)
    assert ordinary[-1] < ordinary[0]


def test_rows_of_texts_come_back_on_the_gpu() -> None:
    lengths = torch.tensor([3, 1, 4])
    columns = [Column("x", (2,), torch.float32, torch.bfloat16, True), Column("y", (3,), torch.float32, torch.int8)]
    store = RowStore(columns, 3, lengths=lengths, device=CUDA)
    rows = torch.arange(24.0, device=CUDA).view(3, 4, 2)
    store.put(torch.arange(3), {"x": rows, "y": torch.ones(3, 3, device=CUDA)})
    found = store.get(torch.tensor([1, 0]))
    assert found["x"].is_cuda and found["x"].shape == (2, 3, 2)
    assert found["x"][0].tolist() == [[8, 9], [0, 0], [0, 0]] and found["x"][1].tolist() == rows[0, :3].tolist()
    assert found["y"].tolist() == [[1.0] * 3] * 2


def test_samples_are_put_together_where_a_gpu_copies_from() -> None:
    torch.zeros(1, device=CUDA)
    batch, targets = collate([(torch.full((2,), float(place)), place) for place in range(3)])
    assert batch.is_pinned() and batch.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert targets.tolist() == [0, 1, 2] and not targets.is_pinned()  # they may be kept
    learnt = torch.ones(2, requires_grad=True)
    assert collate([(learnt, 0), (learnt, 1)])[0].requires_grad


@pytest.mark.parametrize("number", [0, 1])
def test_what_arrives_is_what_was_sent(number: int) -> None:
    if number >= torch.cuda.device_count():
        pytest.skip("needs a second GPU")
    sent = [torch.randn(64, 512, device=f"cuda:{number}") for _ in range(8)]
    arriving = [Arriving(tensor @ tensor.T) for tensor in sent]
    for tensor, one in zip(sent, arriving, strict=True):
        assert torch.equal(one.arrived(), (tensor @ tensor.T).cpu()) and not one.arrived().is_pinned()


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_features_are_those_of_the_processor(precision: Any) -> None:
    model, data = resnet(), images(70)
    found, targets = FeatureExtractor(model, precision=precision).extract(data, progress=False)
    expected, _ = FeatureExtractor(model.to("cpu"), precision="fp32").extract(data, progress=False)
    assert not found.is_cuda and targets is not None and targets.tolist() == (torch.arange(70) % 3).tolist()
    assert float(torch.cosine_similarity(found, expected).min()) > (0.9999 if precision == "fp32" else 0.99)


def test_saved_on_a_gpu_it_answers_alike_on_a_processor(tmp_path: Path) -> None:
    tuner = Finetuner(resnet(), 3, learning_rate=0.01, precision="fp32")
    tuner.fit(images(), images(24, seed=1), epochs=4, run=False)
    assert tuner.evaluate(images(60, seed=2))["accuracy"] > 0.8
    tuner.save(tmp_path / "tuned")
    loaded = Finetuner.load(tmp_path / "tuned", device="cpu")
    assert place(loaded.model) == "cpu"
    given, expected = (one.predict_proba(images(24, seed=3)) for one in (loaded, tuner))
    assert given == pytest.approx(expected, abs=5e-3)


def test_a_fit_is_repeated_by_its_seed() -> None:
    def fitted() -> list[float]:
        with torch.random.fork_rng(devices=[0]):
            torch.manual_seed(3)
            network = nn.Sequential(nn.Flatten(), nn.Linear(27, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3))
        tuner = Finetuner(network.to(CUDA), seed=5, strategy="full", learning_rate=1e-2)
        tuner.fit(images(side=3), epochs=3, run=False)
        return [epoch["loss"] for epoch in tuner.history.epochs]

    state = torch.cuda.get_rng_state()
    assert fitted() == fitted()
    assert torch.equal(state, torch.cuda.get_rng_state()), "the caller's generator was drawn from"


@pytest.mark.real_weights
def test_texts_are_learnt_with_updates_of_the_last_layers(capsys: pytest.CaptureFixture[str]) -> None:
    words = {"animal": ["a cat sleeps", "the dog barks loudly", "birds sing"], "tool": ["a hammer", "the old saw cuts"]}
    data = [(text, name) for name, texts in words.items() for text in texts] * 8
    texts, names = [text for text, _ in data], [name for _, name in data]
    tuner = LoraTuner(load_pretrained_model("minilm"), rank=4, layers=2, learning_rate=1e-3, frozen_prefix="always")
    tuner.fit((texts, names), epochs=5, batch_size=8, run=False)
    assert ONCE in capsys.readouterr().out
    assert list(tuner.predict(["a horse runs", "a screwdriver"])) == ["animal", "tool"]


@pytest.mark.parametrize("method", ["dann", "mcc", "shot", "adabn", "fixmatch", "mean_teacher", "feature_coral"])
def test_adaptation_above_frozen_layers(method: str) -> None:
    if method == "feature_coral":
        pytest.importorskip("skada")
    source, target = images(), images(90, seed=1)
    shifted = ArrayDataset(target.inputs * 1.2 + 0.1, target.targets)
    frozen = ["conv1", "bn1", "layer1", "layer2"]
    adapter = DomainAdapter(resnet(), method=method, num_classes=3, freeze_layers=frozen, learning_rate=1e-3)
    adapter.fit(source, ArrayDataset(shifted.inputs), shifted, epochs=2, source_epochs=2, run=False)
    assert adapter.report is not None
    assert float(adapter.evaluate(shifted)["accuracy"]) > 1 / 3
