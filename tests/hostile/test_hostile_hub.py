"""A hub that sends other bytes, moves its branches and names files where they should not go."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file
from tests.local_hub import LocalHub, flip_file, local_hub, relaxed_records

from neurenix.errors import DamagedFileError, NeurenixError, UnsafeFileError, WeightsNotFoundError
from neurenix.models import ARCHITECTURES, HubSource, Weights
from neurenix.models.sources import obtain
from neurenix.transfer import FeatureExtractor, Finetuner, load_pretrained_model

PROVE = bool(os.environ.get("NEURENIX_PROVE"))
COUNT = 100 if PROVE else 12


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with local_hub(tmp_path) as hub, relaxed_records():
        yield hub


def publish(hub: LocalHub, name: str, seed: int = 0) -> None:
    folder = hub.folder / "someone" / name
    folder.mkdir(parents=True, exist_ok=True)
    values = torch.randn(160, 160, generator=torch.Generator().manual_seed(seed))  # large: the hub states its hash
    save_file({"conv1.weight": values}, folder / "model.safetensors")
    hub.commit(f"someone/{name}")


def record(name: str, file: str = "model.safetensors") -> Weights:
    like = ARCHITECTURES["resnet18"].weights["imagenet"]
    source = HubSource(f"someone/{name}", file=file)
    return dataclasses.replace(like, name="made", source=source, sha256=None, convert=None)


def test_every_file_with_a_flipped_byte_is_found_and_fetched_once_more(hub: LocalHub, tmp_path: Path) -> None:
    found = 0
    for number in range(COUNT):
        publish(hub, f"repo{number}", number)
        wanted = obtain(record(f"repo{number}"))
        cached = next((tmp_path / "hub-cache").glob(f"models--someone--repo{number}/snapshots/*/model.safetensors"))
        flip_file(cached)
        hub.requests.clear()
        again = obtain(record(f"repo{number}"))
        found += again.sha256 == wanted.sha256
        assert torch.equal(again.state["conv1.weight"], wanted.state["conv1.weight"])
        assert sum(method == "GET" and path.endswith(".safetensors") for method, path in hub.requests) == 1
    print(f"{found} of {COUNT} found and mended")
    assert found == COUNT


def test_a_hub_that_always_sends_other_bytes_is_refused_after_two_tries(hub: LocalHub) -> None:
    for number in range(COUNT):
        publish(hub, f"bad{number}", number)
        hub.damage(f"someone/bad{number}", "model.safetensors")
        with pytest.raises(DamagedFileError, match="fetched twice"):
            obtain(record(f"bad{number}"))


def test_a_moved_branch_changes_nothing(hub: LocalHub) -> None:
    for number in range(10):
        publish(hub, f"moved{number}", 1)
        first = obtain(record(f"moved{number}"))
        publish(hub, f"moved{number}", 2)
        second = obtain(record(f"moved{number}"))
        assert (first.sha256, first.revision) == (second.sha256, second.revision)


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "a/../../x.safetensors", "..\\x.safetensors"])
def test_names_that_leave_the_cache_are_refused(name: str, hub: LocalHub, tmp_path: Path) -> None:
    publish(hub, "repo")
    before = {path for path in tmp_path.rglob("*")}
    with pytest.raises(UnsafeFileError, match="no plain path"):
        obtain(record("repo", name))
    assert {path for path in tmp_path.rglob("*")} == before


def test_a_name_that_is_too_long_is_an_error_of_ours(hub: LocalHub) -> None:
    publish(hub, "repo")
    with pytest.raises(NeurenixError):
        obtain(record("repo", "x" * 5000 + ".safetensors"))


# --- no network unless asked --------------------------------------------------------------------------------------


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every attempt to reach anything; none succeeds."""
    tried: list[Any] = []

    def refuse(*arguments: Any, **options: Any) -> Any:
        tried.append(arguments[1:] or arguments)
        raise OSError("the network is blocked")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    return tried


def test_the_block_works(attempts: list[Any]) -> None:
    with pytest.raises(OSError, match="blocked"):
        socket.create_connection(("127.0.0.1", 1))
    assert len(attempts) == 1


@pytest.mark.parametrize("offline", ["1", "0"])
def test_work_on_local_weights_reaches_for_nothing(
    offline: str, attempts: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    images = numpy.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype="uint8")
    data = (images, numpy.arange(8) % 2)
    model = load_pretrained_model("efficientnet-lite0", weights="imagenet", input_shape=(32, 32, 3), device="cpu")
    tuner = Finetuner(model, num_classes=2)
    tuner.fit(data, data, batch_size=4, epochs=1, num_workers=1)
    tuner.save(tmp_path / "model")
    Finetuner.load(tmp_path / "model", device="cpu").predict(images)
    FeatureExtractor(model).cache_features(data, cache_dir=tmp_path / "cache", progress=False)
    assert attempts == []


def test_missing_weights_are_named_within_a_second(attempts: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    began = time.monotonic()
    with pytest.raises(WeightsNotFoundError, match="resnet50"):
        load_pretrained_model("resnet50", device="cpu")
    assert time.monotonic() - began < 1 and attempts == []


TOKEN = "hf_ThisIsASecretThatNobodyShouldSee"


def test_a_token_is_never_shown(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty forced errors with their whole tracebacks, and everything that a fit writes."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN"):
        monkeypatch.setenv(name, TOKEN)
    shown = []
    publish(hub, "repo")
    for number in range(50):
        wrong = [record("nothing"), record("repo", f"no{number}.safetensors"), record("repo", "../x")][number % 3]
        if number % 10 == 9:
            monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
        with pytest.raises(NeurenixError) as caught:
            obtain(wrong)
        shown.append("".join(traceback.format_exception(caught.value)) + repr(caught.value))
    model = load_pretrained_model("resnet18", weights=None, input_shape=(32, 32, 3), device="cpu")
    tuner = Finetuner(model, num_classes=2)
    images = numpy.zeros((4, 32, 32, 3), dtype="uint8")
    tuner.fit((images, [0, 1, 0, 1]), epochs=1, run=tmp_path / "run")
    written = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    shown += [repr(model), repr(tuner.settings), json.dumps(tuner.history.as_json())]
    assert len(shown) == 53 and not [text for text in shown if TOKEN in text]
    assert written and not [content for content in written if TOKEN.encode() in content]
