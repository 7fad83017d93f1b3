"""Cached features are never stale, survive a kill, and a damaged file costs its own shard."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from neurenix.data import ImageFolder
from neurenix.errors import ConfigurationError, DamagedFileError, NeurenixWarning
from neurenix.transfer.features import CachedFeatures, FeatureExtractor, fingerprint
from neurenix.vision import ImageInput, ImagePreprocess

SETTINGS: dict[str, Any] = {"layers": ["first", "second"], "pooling": "avg"}


class Net(nn.Module):
    """Two stages and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Conv2d(4, 5, 3, stride=2)
        self.head = nn.Linear(5, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.second(self.first(images)).mean((2, 3)))


class Doubling(Net):
    """The same weights, other code."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.second(self.first(images) * 2).mean((2, 3)))


class Transformed(Dataset[Any]):
    """Images of a folder through a function."""

    def __init__(self, folder: Path, transform: Callable[[Any], Tensor]) -> None:
        self.files, self.transform = ImageFolder(folder), transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, target = self.files[index]
        return self.transform(image), target


def preprocess(**changes: Any) -> ImagePreprocess:
    values = {"size": (8, 8), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "crop": 1.0}
    return ImagePreprocess(ImageInput(**{**values, **changes}))


def lay(folder: Path, count: int = 6) -> Path:
    random = numpy.random.default_rng(0)
    for place in range(count):
        target = folder / "ab"[place % 2] / f"{place}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (10, 10, 3), dtype=numpy.uint8)).save(target)
    return folder


class Case:
    """A call of cache_features, of which a test changes one thing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "images"
        if not self.folder.exists():
            lay(self.folder)
        self.net: nn.Module = Net()
        self.settings = dict(SETTINGS)
        self.call: dict[str, Any] = {"cache_dir": folder / "cache", "progress": False, "shard_size": 2}
        self.transform: Callable[[Any], Tensor] = preprocess()

    def run(self) -> CachedFeatures:
        return FeatureExtractor(self.net, **self.settings).cache_features(
            Transformed(self.folder, self.transform), **self.call
        )


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def repaint(path: Path) -> None:
    """One pixel, with the file's size and time as before."""
    image, times = Image.open(path).convert("RGB"), path.stat()
    red, green, blue = image.getpixel((4, 4))  # type: ignore[misc]
    image.putpixel((4, 4), (red ^ 1, green, blue))
    image.save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def one_ulp(tensor: Tensor) -> None:
    with torch.no_grad():
        tensor.view(-1)[0] = torch.nextafter(tensor.view(-1)[0], torch.tensor(9e9))


def scaled(factor: float) -> Callable[[Any], Tensor]:
    base = preprocess()
    return lambda image: base(image) * factor


MEANS, SHIFT = [0.0, 0.0, 0.0], {"by": 0.0}


class Scale:
    """A class of the user's own, called in forward."""

    factor = 1.0


class Global(Net):
    """Reads a list, a dict and a class of its module."""

    def forward(self, images: Tensor) -> Tensor:
        images = (images - torch.tensor(MEANS).view(3, 1, 1) + SHIFT["by"]) * Scale.factor
        return self.head(self.second(self.first(images)).mean((2, 3)))


MISSES: dict[str, Callable[[Case], Any]] = {
    "weight": lambda c: one_ulp(c.net.first[0].weight),  # type: ignore[index,union-attr]
    "running statistic": lambda c: one_ulp(c.net.first[1].running_var),  # type: ignore[index,union-attr]
    "eps": lambda c: setattr(c.net.first[1], "eps", 1e-4),  # type: ignore[index,union-attr]
    "layers": lambda c: c.settings.update(layers=["first"]),
    "order of layers": lambda c: c.settings.update(layers=["second", "first"]),
    "pooling": lambda c: c.settings.update(pooling="max"),
    "normalize": lambda c: c.settings.update(normalize=True),
    "precision": lambda c: c.settings.update(precision="bf16"),
    "dtype": lambda c: c.call.update(dtype="float16"),
    "code": lambda c: setattr(c, "net", Doubling()),
    "hook": lambda c: c.net.first.register_forward_hook(lambda module, args, output: output + 1),  # type: ignore[union-attr]
    "activation": lambda c: setattr(c.net.first, "2", nn.ELU()),
    "input size": lambda c: setattr(c, "transform", preprocess(size=(10, 10))),
    "mean": lambda c: setattr(c, "transform", preprocess(mean=(0.5, 0.5, 0.4))),
    "interpolation": lambda c: setattr(c, "transform", preprocess(interpolation="nearest", size=(7, 7))),
    "closure": lambda c: setattr(c, "transform", scaled(1.5)),
    "pixel": lambda c: repaint(c.folder / "b" / "3.png"),
    "label": lambda c: (c.folder / "a" / "2.png").rename(c.folder / "b" / "2.png"),
    "order of files": lambda c: (c.folder / "a" / "0.png").rename(c.folder / "a" / "9.png"),
    "new file": lambda c: Image.new("RGB", (10, 10)).save(c.folder / "a" / "7.png"),
    "missing file": lambda c: (c.folder / "a" / "4.png").unlink(),
}


@pytest.mark.parametrize("change", MISSES.values(), ids=MISSES)
def test_whatever_matters_is_computed_again(case: Case, change: Callable[[Case], Any]) -> None:
    first = case.run()
    assert first.computed == 6 and case.run().computed == 0
    change(case)
    second = case.run()
    assert second.computed == len(second) and second.folder != first.folder


@pytest.mark.parametrize("package", ["torch", "pillow", "neurenix", "python"])
def test_another_version_is_computed_again(case: Case, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case.run()
    versions = fingerprint.versions()
    monkeypatch.setattr(fingerprint, "versions", lambda: {**versions, package: "99.0"})
    assert case.run().computed == 6


HITS: dict[str, Callable[[Case], Any]] = {
    "nothing": lambda c: None,
    "batch size": lambda c: c.call.update(batch_size=5),
    "workers": lambda c: c.call.update(num_workers=2),
    "progress": lambda c: c.call.update(progress=True),
    "mode": lambda c: c.net.train(),
    "requires_grad": lambda c: c.net.requires_grad_(False),
    "gradient": lambda c: setattr(c.net.head, "weight", nn.Parameter(c.net.head.weight.detach().clone())),  # type: ignore[union-attr]
    "folder moved": lambda c: setattr(c, "folder", c.folder.rename(c.folder.with_name("moved"))),
    "file times": lambda c: os.utime(c.folder / "a" / "0.png", (1, 1)),
    "threads": lambda c: torch.set_num_threads(1),
    "shard size": lambda c: c.call.update(shard_size=3),
}


@pytest.mark.parametrize("change", HITS.values(), ids=HITS)
def test_whatever_does_not_matter_is_read(case: Case, change: Callable[[Case], Any]) -> None:
    first = case.run()
    change(case)
    second = case.run()
    assert second.computed == 0
    assert torch.equal(second.features, first.features) and torch.equal(second.targets, first.targets)  # type: ignore[arg-type]


def in_another_process(folder: Path, answer: Any) -> None:
    case = Case(folder)
    cached = case.run()
    answer.put((cached.computed, cached.features.tolist()))


def test_another_process_reads_what_this_one_wrote(case: Case, tmp_path: Path) -> None:
    mine = case.run()
    context = multiprocessing.get_context("spawn")  # another hash seed, other addresses
    answer = context.Queue()
    process = context.Process(target=in_another_process, args=(tmp_path, answer))
    process.start()
    assert answer.get(timeout=60) == (0, mine.features.tolist())
    process.join()


@pytest.mark.parametrize(
    "transform",
    [
        lambda image: preprocess()(image) + torch.rand(()),
        lambda image: preprocess()(image) * (uuid.uuid4().int % 7 + 1),
    ],
    ids=["random", "uuid"],
)
def test_data_that_differ_each_time_need_a_key(case: Case, transform: Any) -> None:
    case.transform = transform
    with pytest.raises(ConfigurationError, match="cache_key="):
        case.run()
    case.call["cache_key"] = "first"
    assert case.run().computed == 6
    assert case.run().computed == 0
    case.call["cache_key"] = "second"
    assert case.run().computed == 6


def slow(folder: Path) -> None:
    case = Case(folder)
    base = preprocess()

    def transform(image: Any) -> Tensor:
        time.sleep(0.15)
        return base(image)

    case.transform = transform
    case.call["cache_key"] = "slow"
    case.run()


def test_killed_half_way_goes_on_at_the_first_missing_shard(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=slow, args=(tmp_path,))
    process.start()
    while len(list((tmp_path / "cache").rglob("rows-*"))) < 2:
        time.sleep(0.01)
        assert process.is_alive()
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    written = len(list((tmp_path / "cache").rglob("rows-*")))
    case = Case(tmp_path)
    case.call["cache_key"] = "slow"
    resumed = case.run()
    assert resumed.computed == 6 - 2 * written
    case.call["cache_dir"] = tmp_path / "other"
    assert torch.equal(resumed.features, case.run().features)
    assert not [path for path in (tmp_path / "cache").rglob(".*")]


@pytest.mark.parametrize("shard", range(3))
@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_shard_is_named_and_computed_again(case: Case, shard: int, damage: str) -> None:
    first = case.run()
    path = sorted(first.folder.glob("rows-*"))[shard]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flip": content, "cut": content[:50], "empty": b""}[damage])
    with pytest.raises(DamagedFileError, match=path.name):
        CachedFeatures.load(first.folder)
    with pytest.warns(NeurenixWarning, match=path.name):
        again = case.run()
    assert again.computed == 2 and torch.equal(again.features, first.features)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1", b"null"])
def test_a_damaged_manifest_costs_nothing(case: Case, content: bytes | None) -> None:
    first = case.run()
    manifest = first.folder / "manifest.json"
    manifest.unlink() if content is None else manifest.write_bytes(content)
    with pytest.raises((ConfigurationError, DamagedFileError), match="cache"):
        CachedFeatures.load(first.folder)
    again = case.run()
    assert again.computed == 0 and torch.equal(again.features, first.features)
    assert json.loads(manifest.read_text())["rows"] == 6


def test_several_that_fill_one_folder(tmp_path: Path, case: Case) -> None:
    """Threads in place of processes: files are all that they share."""
    results: list[CachedFeatures] = []
    cases = [Case(tmp_path) for _ in range(4)]
    threads = [threading.Thread(target=lambda c=c: results.append(c.run())) for c in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(torch.equal(result.features, results[0].features) for result in results)
    assert case.run().computed == 0


def fill_many(folder: Path, rounds: int) -> None:
    """All processes race for the same new folder in every round."""
    case = Case(folder)
    for number in range(rounds):
        case.call["cache_dir"] = folder / "cache" / str(number)
        assert len(case.run()) == 6


def test_processes_that_fill_one_folder_while_some_are_killed(tmp_path: Path) -> None:
    prove = bool(os.environ.get("NEURENIX_PROVE"))
    lay(tmp_path / "images")
    processes = [
        multiprocessing.get_context("fork").Process(target=fill_many, args=(tmp_path, 200 if prove else 20))
        for _ in range(8 if prove else 4)
    ]
    for process in processes:
        process.start()
        time.sleep(0.05)
    for process in processes[::2]:
        time.sleep(0.1)
        process.kill()
    for number, process in enumerate(processes):
        process.join(120)
        assert process.exitcode in ((0,) if number % 2 else (0, -signal.SIGKILL))
    for folder in (tmp_path / "cache").iterdir():
        [keyed] = folder.iterdir()
        assert len(CachedFeatures.load(keyed)) == 6


@pytest.mark.parametrize("change", ["list", "dict", "class"])
def test_what_forward_reads_of_its_module_matters(case: Case, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By too little for the comparison of a few rows to see it."""
    case.net = Global()
    before = fingerprint.module_digest(case.net)
    assert case.run().computed == 6 and case.run().computed == 0
    if change == "list":
        monkeypatch.setattr(sys.modules[__name__], "MEANS", [1e-5, 0.0, 0.0])
    elif change == "dict":
        monkeypatch.setitem(SHIFT, "by", 1e-5)
    else:
        monkeypatch.setattr(Scale, "factor", 1 + 1e-6)
    assert fingerprint.module_digest(case.net) != before
    assert case.run().computed == 6


second = [numpy.zeros(3)]  # not what Net.forward means by self.second
KINDS = {Scale, Net, frozenset, str, dict}


class Chosen(Net):
    """Names a set, and the classes in it."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) if type(self) in KINDS or Scale.factor else images


def test_attributes_are_not_taken_for_what_the_module_calls_so(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint.module_digest(Net())
    monkeypatch.setattr(sys.modules[__name__], "second", [numpy.ones(3)])
    assert fingerprint.module_digest(Net()) == before


def test_sets_have_no_order() -> None:
    """Not from process to process either, as the hashes of names have there."""
    code = "from tests.unit.test_features_cache import *; print(fingerprint.module_digest(Chosen()))"
    found = set()
    for seed in "123":
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        found.add(subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).split()[-1])
    assert len(found) == 1


def test_a_look_at_what_is_kept_builds_no_backend(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    from neurenix.transfer.features import extractor

    assert case.run().computed == 6
    monkeypatch.setattr(extractor, "fast_forward", lambda *_, **__: pytest.fail("four samples need no backend"))
    assert case.run().computed == 0


def test_missing_shards_are_computed_by_batches_of_their_own_size(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    from neurenix.transfer.features import extractor

    case.call["shard_size"] = 3
    cached, real, sizes = case.run(), extractor.fast_forward, []

    def watched(module: nn.Module, example: Tensor, **options: Any) -> Any:
        sizes.append(len(example))
        return real(module, example, **options)

    next(cached.folder.glob("rows-00000000-*")).unlink()
    monkeypatch.setattr(extractor, "fast_forward", watched)
    assert case.run().computed == 3 and sizes == [3]
