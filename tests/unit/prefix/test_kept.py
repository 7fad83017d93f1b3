"""What frozen layers gave is taken from an earlier run for the very same inputs and layers, and never for others."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from tests.unit.prefix.fits import (
    TEXTS,
    Convolutional,
    Flickering,
    Images,
    Texts,
    digests,
    gap,
    numbers,
    seeded,
    tuner_for,
)
from torch import Tensor

from neurenix.data import DataLoader, ImageFolder
from neurenix.storage import file_sha256, read_hashed, write_hashed
from neurenix.training.prefix import frozen, kept, split
from neurenix.transfer import Finetuner

FOUND = "batches had been through the frozen layers before"


class Passes:
    """Batches that went through frozen layers since the last look."""

    def __init__(self) -> None:
        self.count = 0

    def look(self) -> int:
        count, self.count = self.count, 0
        return count


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    counted, real = Passes(), frozen.fast_forward

    def counting(*arguments: Any, **options: Any) -> Callable[[Any], Any]:
        forward = real(*arguments, **options)

        def passing(inputs: Any) -> Any:
            counted.count += 1
            return forward(inputs)

        return passing

    monkeypatch.setattr(frozen, "fast_forward", counting)
    return counted


def files(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.is_file())


def fit(name: str, tmp_path: Path, change: Callable[[Finetuner], object] = lambda tuner: None, **options: Any) -> Any:
    """A fit in a run folder of its own: 6 batches, and 2 for the validation of a head. change: done to the tuner."""
    folder = tempfile.mkdtemp(dir=tmp_path)
    data = options.pop("data", Texts if name in TEXTS else Images)
    of_fit = {key: options.pop(key, value) for key, value in {"batch_size": 4, "epochs": 3, "run": folder}.items()}
    tuner = tuner_for(name, options.pop("use", "always"), **options)
    change(tuner)
    tuner.fit(data(24), Images(8, seed=1) if name == "head" else None, **of_fit)
    return tuner


def assert_as_without(tuner: Finetuner, name: str, tmp_path: Path, **options: Any) -> None:
    """The same bits as where nothing is kept."""
    plain = fit(name, tmp_path, run=False, **options)
    assert digests(tuner) == digests(plain) and numbers(tuner) == numbers(plain)


# --- what is found --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "computed"),
    [
        ("head", {}, 8),
        ("last stage", {}, 6),
        ("words", {}, 6),
        ("head", {"strategy": "head", "freeze_layers": []}, 8),
        ("head", {"data": Flickering, "augmented_views": 2}, 14),
    ],
    ids=["head", "stage", "texts", "solved head", "views"],
)
def test_a_second_run_computes_nothing(
    name: str,
    options: dict[str, Any],
    computed: int,
    passes: Passes,
    tmp_path: Path,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = fit(name, tmp_path, **options)
    assert passes.look() == computed and FOUND not in capsys.readouterr().out
    there = files(home)
    assert len(there) == computed and all(file_sha256(path) == path.name.split(".")[1] for path in there)
    second = fit(name, tmp_path, **options)
    assert passes.look() == 0 and FOUND in capsys.readouterr().out
    assert digests(second) == digests(first) and numbers(second) == numbers(first)
    assert files(home) == there
    assert_as_without(second, name, tmp_path, **options)


def test_another_rate_learns_from_the_same_rows(passes: Passes, tmp_path: Path) -> None:
    fit("last stage", tmp_path)
    passes.look()
    options = {"learning_rate": 0.01, "optimizer": "adam", "epochs": 5, "label_smoothing": 0.1}
    other = fit("last stage", tmp_path, **options)
    assert passes.look() == 0
    assert_as_without(other, "last stage", tmp_path, **options)


def test_nothing_is_left_where_nothing_is_to_be_kept(passes: Passes, tmp_path: Path, home: Path) -> None:
    for _ in range(2):
        fit("head", tmp_path, run=False)
        fit("head", tmp_path, run=False, strategy="head", freeze_layers=[])
        assert passes.look() == 16 and not files(home)


def test_what_is_cut_is_found_by_the_next(passes: Passes, tmp_path: Path) -> None:
    """The same rows, and those behind them."""
    fit("head", tmp_path, epochs=2)
    passes.look()
    more = fit("head", tmp_path, data=lambda count: Images(count + 8))  # the order of the samples is another one
    assert passes.look() == 8  # of 10: validation is the same
    assert_as_without(more, "head", tmp_path, data=lambda count: Images(count + 8))


# --- what is not ----------------------------------------------------------------------------------------------------


def nudge(layer: str, tensor: str) -> Callable[[Finetuner], None]:
    """Move one number of a frozen layer to the next that there is."""

    def change(tuner: Finetuner) -> None:
        values = getattr(tuner.model.get_submodule(f"trunk.module.{layer}"), tensor).data.view(-1)
        values[3] = torch.nextafter(values[3], values[3] + 1)

    return change


def set_attribute(layer: str, name: str, value: Any) -> Callable[[Finetuner], None]:
    return lambda tuner: setattr(tuner.model.get_submodule(f"trunk.module.{layer}"), name, value)


class Nudged(Images):
    """One number of one image is the next that there is."""

    def __init__(self, count: int, seed: int = 0) -> None:
        super().__init__(count, seed)
        value = self.images[5, 1, 2, 3]
        self.images[5, 1, 2, 3] = torch.nextafter(value, value + 1)


class Transformed(Images):
    """Another transform."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, target = super().__getitem__(index)
        return image * 1.0001, target


# what is other in the second fit, and how many of 8 batches are computed anew
CHANGES: dict[str, tuple[dict[str, Any], int]] = {
    "a weight": ({"change": nudge("stem.0", "weight")}, 8),
    "a buffer": ({"change": nudge("middle.1", "running_var")}, 8),
    "a setting": ({"change": set_attribute("stem.1", "eps", 1.1e-5)}, 8),
    "a sample": ({"data": Nudged}, 1),
    "the transform": ({"data": Transformed}, 6),
    "the seed": ({"seed": 1}, 6),
    "the batch size": ({"batch_size": 6}, 6),
    "the precision": ({"precision": "bf16"}, 8),
    "the backend": ({"backend": "channels_last"}, 8),
}


@pytest.mark.parametrize(
    ("name", "what"), [*(("head", what) for what in CHANGES), *(("last stage", what) for what in list(CHANGES)[:3])]
)
def test_another_one_is_computed(name: str, what: str, passes: Passes, tmp_path: Path) -> None:
    options, computed = CHANGES[what]
    first = fit(name, tmp_path)
    passes.look()
    changed = fit(name, tmp_path, **options)
    assert passes.look() == (computed if name == "head" else 6)
    assert_as_without(changed, name, tmp_path, **options)
    passes.look()
    again = fit(name, tmp_path)
    assert passes.look() == 0 and digests(again) == digests(first)


@pytest.mark.parametrize("what", ["versions", "threads"])
def test_another_machine_computes_its_own(
    what: str, passes: Passes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit("head", tmp_path)
    passes.look()
    if what == "versions":
        monkeypatch.setattr(kept.fingerprint, "versions", lambda: {"torch": "0.1"})
    else:
        monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    fit("head", tmp_path)
    assert passes.look() == 8


def trunk(code: int) -> type[Convolutional]:
    """Classes of one name whose code differs."""
    if code == 0:

        class Trunk(Convolutional):
            def forward(self, images: Tensor) -> Tensor:
                return self.fc(self.last(self.middle(self.stem(images))).mean((2, 3)))

    else:

        class Trunk(Convolutional):  # type: ignore[no-redef]
            def forward(self, images: Tensor) -> Tensor:
                return self.fc(self.last(self.middle(self.stem(images * 1.0001))).mean((2, 3)))

    return Trunk


@pytest.mark.parametrize("name", ["head", "last stage"])
def test_other_code_under_the_same_name_is_another_model(name: str, passes: Passes, tmp_path: Path) -> None:
    assert trunk(0).__qualname__ == trunk(1).__qualname__
    fit(name, tmp_path, make=trunk(0))
    passes.look()
    other = fit(name, tmp_path, make=trunk(1))
    assert passes.look() == (8 if name == "head" else 6)
    assert_as_without(other, name, tmp_path, make=trunk(1))


helpers = types.ModuleType("helpers")  # stands for a file of the user's own


class Helped(Convolutional):
    """Its code names a function of another module."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(helpers.scaled(images))


@pytest.mark.parametrize("factor", [2.0, 1.0001], ids=["large", "small"])
def test_changes_of_a_function_of_another_module_are_noticed(factor: float, passes: Passes, tmp_path: Path) -> None:
    helpers.scaled = lambda images: images  # type: ignore[attr-defined]
    fit("head", tmp_path, make=Helped)
    passes.look()
    helpers.scaled = lambda images: images * factor  # type: ignore[attr-defined]
    other = fit("head", tmp_path, make=Helped)
    assert passes.look() == 8
    assert_as_without(other, "head", tmp_path, make=Helped)


@pytest.mark.parametrize("gone", [(), (0,), (0, 1, 4)], ids=["all there", "first gone", "some gone"])
def test_changes_that_no_digest_tells_of_are_noticed_by_the_rows(
    gone: tuple[int, ...],
    passes: Passes,
    tmp_path: Path,
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if something decided what the layers give that nobody thought of."""
    monkeypatch.setattr(kept.fingerprint, "module_digest", lambda *_, **__: "the same")
    fit("head", tmp_path)
    passes.look()
    for place in gone:
        of_batch(home, first_batch(place))[0].unlink()
    change = set_attribute("stem.1", "eps", 0.3)
    other = fit("head", tmp_path, change=change)
    assert "not what the layers give now" in capsys.readouterr().out and passes.look() == 8
    assert_as_without(other, "head", tmp_path, change=change)
    assert len(files(home)) == 8


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(numpy.array(image)).permute(2, 0, 1).float() / 255


def test_an_image_of_the_same_size_and_time_is_another_image(passes: Passes, tmp_path: Path) -> None:
    generator = numpy.random.default_rng(0)
    for number in range(24):
        path = tmp_path / "images" / "abc"[number % 3] / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=numpy.uint8)).save(path)

    def read(count: int) -> ImageFolder:
        return ImageFolder(tmp_path / "images", transform=to_tensor)

    fit("head", tmp_path, data=read)
    assert passes.look() == 8
    fit("head", tmp_path, data=read)
    assert passes.look() == 0
    path = tmp_path / "images" / "b" / "4.bmp"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    changed = fit("head", tmp_path, data=read)
    assert passes.look() == 1
    assert_as_without(changed, "head", tmp_path, data=read)


# --- files that are not what they were ----------------------------------------------------------------------------


def first_batch(place: int = 0) -> str:
    """How the files of a batch of the first epoch begin."""
    loader = DataLoader(Images(24), batch_size=4, shuffle=True, seed=0)
    return kept._content(list(loader.batches(0))[place].inputs)


def of_batch(home: Path, stem: str) -> list[Path]:
    return list(home.glob(f"prefix/*/{stem}.*.safetensors"))


def test_damaged_files_are_computed_again_and_mended(passes: Passes, tmp_path: Path, home: Path) -> None:
    """Each of eight files has another damage, twice."""
    whole = fit("head", tmp_path)
    passes.look()
    there = {path: path.read_bytes() for path in files(home)}
    size = min(map(len, there.values())) - 1
    damages: list[Callable[[bytes, bytes], bytes | None]] = [
        lambda content, _: None,
        lambda content, _: b"",
        lambda content, _: content[:1],
        lambda content, _: content[: size // 2],
        lambda content, _: content[:-1],
        lambda content, _: content + b"\0",
        lambda content, other: other,
        lambda content, _: b"\x80\x04",
        *(
            lambda content, _, place=place: content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
            for place in [size * part // 7 for part in range(8)]
        ),
    ]
    for some in (damages[:8], damages[8:]):
        others = [*there.values()][1:] + [*there.values()][:1]
        for (path, content), other, damage in zip(there.items(), others, some, strict=True):
            damaged = damage(content, other)
            path.unlink() if damaged is None else path.write_bytes(damaged)
        again = fit("head", tmp_path)
        assert passes.look() == 8 and digests(again) == digests(whole)
        assert {path: path.read_bytes() for path in files(home)} == there


def test_a_batch_with_the_name_of_another_is_damaged(passes: Passes, tmp_path: Path, home: Path) -> None:
    whole = fit("head", tmp_path)
    passes.look()
    (one,), (other,) = of_batch(home, first_batch(2)), of_batch(home, first_batch(3))
    one.write_bytes(other.read_bytes())
    assert digests(fit("head", tmp_path)) == digests(whole) and passes.look() == 1


def test_a_batch_under_the_number_of_another_is_damaged(passes: Passes, tmp_path: Path, home: Path) -> None:
    whole = fit("head", tmp_path)
    passes.look()
    (one,), (other,) = of_batch(home, first_batch(2)), of_batch(home, first_batch(3))
    one.unlink()
    other.rename(other.with_name(other.name.replace(first_batch(3), first_batch(2))))
    assert digests(fit("head", tmp_path)) == digests(whole)


def stamp(stem: str) -> dict[str, Tensor]:
    """What a file holds beside the rows."""
    return {kept._STAMP: kept._stamp(stem)}


FORGERIES: dict[str, Callable[[Tensor], dict[str, Tensor]]] = {
    "other numbers": lambda rows: {"features": rows + 0.01 * rows.abs().mean()},
    "the rows of others": lambda rows: {"features": rows.flip(0)},
    "NaN": lambda rows: {"features": rows.index_fill(0, torch.tensor([1]), float("nan"))},
    "another name": lambda rows: {"others": rows},
    "one more": lambda rows: {"features": rows, "others": rows.clone()},
    "fewer rows": lambda rows: {"features": rows[:2]},
    "narrower rows": lambda rows: {"features": rows[:, :-1]},
    "flat rows": lambda rows: {"features": rows.flatten()},
    "whole numbers": lambda rows: {"features": rows.long()},
}
DAMAGED = ("fewer rows", "flat rows")  # with what is no row for each sample, a file is damaged, and others are not


@pytest.mark.parametrize("what", FORGERIES)
def test_whole_files_that_are_wrong_for_the_layers_are_removed(
    what: str,
    passes: Passes,
    tmp_path: Path,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = fit("head", tmp_path)
    passes.look()
    there = {path.name for path in files(home)}
    (path,) = of_batch(home, first_batch())
    rows = read_hashed(path)["features"]
    path.unlink()
    write_hashed(path.parent, first_batch(), {**FORGERIES[what](rows), **stamp(first_batch())})
    passes.look()
    again = fit("head", tmp_path)
    assert passes.look() == (1 if what in DAMAGED else 8)
    assert ("not what the layers give now" in capsys.readouterr().out) == (what not in DAMAGED)
    assert digests(again) == digests(whole)
    assert {path.name for path in files(home)} == there


# --- disks ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_told_once_and_the_fit_goes_on(
    passes: Passes, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, tried = Path.write_bytes, [0]

    def full(path: Path, content: bytes) -> int:
        if home not in path.parents:
            return write(path, content)
        tried[0] += 1
        if tried[0] <= 3:
            return write(path, content)
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    cut_short = fit("last stage", tmp_path)
    said = capsys.readouterr().out
    assert said.count("not kept for later runs") == 1 and "No space left on device" in said
    assert tried[0] == 4 and len(files(home)) == 3, "half a file is there, or it was tried again"
    monkeypatch.setattr(Path, "write_bytes", write)
    passes.look()
    again = fit("last stage", tmp_path)
    assert passes.look() == 3 and len(files(home)) == 6
    assert digests(again) == digests(cut_short)
    assert_as_without(cut_short, "last stage", tmp_path)


@pytest.fixture
def read_only(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the cache folder one that cannot be written to, for root too."""
    stamp, unlink, mkdir, make, rename = os.utime, os.unlink, os.mkdir, tempfile.mkstemp, os.replace

    def refused(path: Any) -> None:
        if path is not None and str(path).startswith(str(home)):
            raise OSError(errno.EROFS, "Read-only file system", str(path))

    def refusing(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(path: Any, *arguments: Any, **options: Any) -> Any:
            refused(path)
            return call(path, *arguments, **options)

        return wrapper

    def refusing_mkdir(path: Any, *arguments: Any, **options: Any) -> None:
        if Path(path).is_dir():
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        refused(path)
        mkdir(path, *arguments, **options)

    def refusing_mkstemp(*arguments: Any, **options: Any) -> Any:
        refused(options.get("dir"))
        return make(*arguments, **options)

    def begin() -> None:
        monkeypatch.setattr(os, "utime", refusing(stamp))
        monkeypatch.setattr(os, "unlink", refusing(unlink))
        monkeypatch.setattr(os, "replace", refusing(rename))
        monkeypatch.setattr(os, "mkdir", refusing_mkdir)
        monkeypatch.setattr(tempfile, "mkstemp", refusing_mkstemp)

    return begin


def test_a_folder_that_cannot_be_made_stops_no_fit(
    passes: Passes, tmp_path: Path, home: Path, read_only: Callable[[], None]
) -> None:
    read_only()
    tuner = fit("head", tmp_path)
    assert passes.look() == 8 and not home.exists()
    assert_as_without(tuner, "head", tmp_path)


def test_a_folder_that_cannot_be_written_to_stops_no_fit(
    passes: Passes, tmp_path: Path, home: Path, read_only: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fit("head", tmp_path, seed=1)
    there = files(home)
    passes.look()
    capsys.readouterr()
    read_only()
    tuner = fit("head", tmp_path)
    assert passes.look() >= 6 and files(home) == there
    assert "not kept for later runs" in capsys.readouterr().out
    assert_as_without(tuner, "head", tmp_path)


def test_a_folder_that_cannot_be_written_to_is_read(
    passes: Passes, tmp_path: Path, home: Path, read_only: Callable[[], None]
) -> None:
    """Rows that an administrator laid in, or that belong to another user."""
    fit("head", tmp_path)
    passes.look()
    read_only()
    fit("head", tmp_path)
    assert passes.look() == 0


def test_files_of_another_user_stay(
    passes: Passes, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that all may write to, the time of another's file cannot be set."""
    fit("head", tmp_path)
    passes.look()

    def refused(path: Any, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "utime", refused)
    fit("head", tmp_path)
    assert passes.look() == 0


def test_wrong_rows_that_cannot_be_removed_stop_no_fit(
    passes: Passes, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit("head", tmp_path)
    (path,) = of_batch(home, first_batch())
    rows = read_hashed(path)["features"]
    path.unlink()
    write_hashed(path.parent, first_batch(), {"features": rows * 2, **stamp(first_batch())})
    unlink = os.unlink

    def refused(target: Any, *arguments: Any, **options: Any) -> None:
        if str(target).startswith(str(home)) and str(target).endswith(".safetensors"):
            raise PermissionError(errno.EACCES, "Permission denied", str(target))
        unlink(target, *arguments, **options)

    monkeypatch.setattr(os, "unlink", refused)
    passes.look()
    again = fit("head", tmp_path)
    assert digests(again) == digests(whole) and passes.look() == 6  # validation finds what is its own


def lay(folder: Path, count: int, size: int, age: float) -> list[Path]:
    """Files of some model, each used a second after the one before; the first `age` seconds ago."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04}.{'0' * 64}.safetensors" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(b"x" * size)
        os.utime(path, (10**9 - age + number, 10**9 - age + number))
    return paths


@pytest.mark.parametrize(
    ("free", "size", "own", "gone", "room"),
    [
        (10_000, 500, 0, 0, True),  # a quarter of 10,000 and the others' 1,000 is enough for the others and 500
        (3_000, 300, 0, 3, True),
        (3_000, 600, 0, 6, True),
        (1_000, 500, 0, 10, True),
        (3_000, 600, 4, 5, True),  # what is there of the own 600 is wanted once
        (1_000, 501, 0, 0, False),  # nothing goes where that would not be enough
    ],
)
def test_what_was_used_longest_ago_makes_room(
    free: int, size: int, own: int, gone: int, room: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten files of 100 bytes of two other models, and some of the own, older than all."""
    root = tmp_path / "prefix"
    others = [*lay(root / "a", 5, 100, age=1000), *lay(root / "b", 5, 100, age=500)]
    mine = lay(root / "own", own, 100, age=9000)
    (root / "own").mkdir(exist_ok=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 0, free))  # type: ignore[attr-defined]
    assert kept._make_room(root, root / "own", size) is room
    assert [path.exists() for path in others] == [False] * gone + [True] * (10 - gone)
    assert all(path.exists() for path in mine)


def test_models_make_room_for_each_other(
    passes: Passes, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is free is less than the rows of either, so the first model's files go for those of the second."""
    fit("head", tmp_path)
    first = files(home)
    passes.look()
    rows = 24 * 10 * 4  # bytes: samples, numbers of each, bytes of each
    monkeypatch.setattr(kept, "_SHARE", 1.0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, rows // 2))  # type: ignore[attr-defined]
    other = fit("head", tmp_path, change=nudge("stem.0", "weight"))
    assert passes.look() == 8
    assert 0 < len([path for path in first if path.exists()]) < 8
    assert len([path for path in files(home) if path not in first]) == 8
    assert_as_without(other, "head", tmp_path, change=nudge("stem.0", "weight"))


def test_without_room_nothing_is_kept_and_what_is_there_is_found(
    passes: Passes, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit("head", tmp_path)
    passes.look()
    of_batch(home, first_batch(2))[0].unlink()
    there = files(home)
    monkeypatch.setattr(kept, "_SHARE", 0.0)
    again = fit("head", tmp_path)
    assert passes.look() == 1 and files(home) == there and digests(again) == digests(whole)


def test_files_that_vanish_while_room_is_made_are_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "prefix"
    others = lay(root / "a", 6, 100, age=1000)
    (root / "own").mkdir()
    status = Path.stat

    def vanishing(path: Path, **options: Any) -> os.stat_result:
        if path == others[2]:
            path.unlink(missing_ok=True)  # another process makes room too
        return status(path, **options)

    monkeypatch.setattr(Path, "stat", vanishing)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 0, 0))  # type: ignore[attr-defined]
    assert kept._make_room(root, root / "own", 20)
    assert [path.exists() for path in others] == [False] * 5 + [True]


def test_two_fits_of_one_process_share_what_is_there(passes: Passes, tmp_path: Path) -> None:
    """Validation data that are training data too, in another order and other batches, are not taken for them."""
    data = Images(24)
    tuner = tuner_for("head", "always")
    tuner.fit(data, data, batch_size=4, epochs=2, run=tmp_path / "first")
    assert passes.look() == 12
    tuner = tuner_for("head", "always")
    tuner.fit(data, data, batch_size=4, epochs=2, run=tmp_path / "second")
    assert passes.look() == 0
    plain = tuner_for("head", "never")
    plain.fit(data, data, batch_size=4, epochs=2, run=False)
    assert gap(tuner, plain) < 1e-6


def test_own_files_that_nobody_asks_for_make_room_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each seed leaves other batches: of a folder's own files the newest stay, as many bytes as are wanted."""
    own = tmp_path / "prefix" / "own"
    own.mkdir(parents=True)
    for age in range(4):
        (own / f"{age}.safetensors").write_bytes(bytes(100))
        os.utime(own / f"{age}.safetensors", (1_000_000 - age,) * 2)
    usage = types.SimpleNamespace(free=800)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)  # 1,200 bytes with the files: 300 are allowed
    assert kept._make_room(own.parent, own, 200.0)
    assert sorted(path.stem for path in own.iterdir()) == ["0", "1", "2"]
    assert not kept._make_room(own.parent, own, 10_000.0)


def test_a_lack_of_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(kept, "_make_room", lambda *_: False)
    kept.KeptBatches(
        split(seeded(Convolutional).eval().requires_grad_(False), Images(2).images).prefix, {}, 1e9, said.append
    )
    assert said and "not kept for later runs: 0.9 GiB" in said[0]
