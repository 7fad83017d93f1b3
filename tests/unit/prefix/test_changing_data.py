"""Data, hooks and disks that change while a fit goes on: rows that were stored are given up, and nothing is lost."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from tests.unit.prefix.fits import (
    Convolutional,
    Cut,
    CutAfter,
    Images,
    Texts,
    digests,
    fitted,
    gap,
    numbers,
    seeded,
    tuner_for,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader as TorchDataLoader

from neurenix.callbacks import Callback
from neurenix.data import DataLoader, is_random
from neurenix.errors import UnreadableSampleError
from neurenix.training.prefix import NotSplittable, split
from neurenix.training.prefix.probes import Probes
from neurenix.training.prefix.store import RowStore
from neurenix.training.prefix.targets import TargetRows, bytes_of_targets

SAID, GIVEN_UP = "the frozen layers run once for each of", "the frozen layers run in every pass from now on"


class RareNoise(Images):
    """Noise in each epoch, of one sample that nobody looks at beforehand."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, target = super().__getitem__(index)
        return (image + torch.randn(image.shape), target) if index == 17 else (image, target)


class OwnNoise(Images):
    """Every second read of the same dataset object is other than the one before, by a generator of its own."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.generator = numpy.random.default_rng(0)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, target = super().__getitem__(index)
        return image + float(self.generator.random()) * (self.reads > 40), target


class Brighter(Callback):
    """A curriculum: from the second epoch on the images are others."""

    def __init__(self, data: Images) -> None:
        self.data = data

    def on_epoch_begin(self, epoch: int, logs: Any) -> None:
        if epoch == 1:
            self.data.images = self.data.images + 1.0


class Relabels(Callback):
    """From the second epoch on a sample has another label."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def on_epoch_begin(self, epoch: int, logs: Any) -> None:
        self.data.shift = int(epoch > 0)


class Shifted(Images):
    shift = 0

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, target = super().__getitem__(index)
        return image, (target + self.shift) % 3


def both(make: Any, callback: Any = None, **options: Any) -> list[Any]:
    tuners = []
    for use in ("always", "never"):
        data = make(24)
        callbacks = [] if callback is None else [callback(data)]
        tuners.append(fitted("last stage", use, data, callbacks=callbacks, **options))
    return tuners


def test_a_rare_sample_that_is_augmented_is_seen_anew_in_each_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    assert not is_random(RareNoise(24)), "the case is one that a look beforehand finds"
    stored, ordinary = both(RareNoise)
    said = capsys.readouterr().out
    assert SAID in said and "reading some samples draws random numbers" in said
    assert digests(stored) == digests(ordinary) and numbers(stored) == numbers(ordinary)


@pytest.mark.parametrize("make", [RareNoise, Images])
def test_a_head_that_is_solved_on_the_same_features(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The features are known before the first epoch: whether they are random too, and what a callback does then."""
    tuners = []
    for use in ("always", "never"):
        data = make(24)
        callbacks = [Brighter(data)] if make is Images else []
        tuners.append(fitted("head", use, data, strategy="head", freeze_layers=[], callbacks=callbacks))
    said = capsys.readouterr().out
    assert SAID in said and ("reading some samples draws random" in said if make is RareNoise else GIVEN_UP in said)
    assert gap(*tuners) < 1e-6


def test_a_batch_that_is_made_at_random_is_made_anew_in_each_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    def mixing(samples: list[Any]) -> Any:
        share = float(torch.rand(()))
        images = torch.stack([image for image, _ in samples])
        return share * images + (1 - share) * images.flip(0), torch.tensor([target for _, target in samples])

    stored, ordinary = (
        fitted("last stage", use, DataLoader(Images(24), 4, collate=mixing)) for use in ("always", "never")
    )
    assert "draws random numbers" in capsys.readouterr().out
    assert digests(stored) == digests(ordinary)


@pytest.mark.parametrize("steps", [2, 5, 7, 14])
def test_a_killed_fit_of_random_data_ends_with_the_same_bits(steps: int, tmp_path: Path) -> None:
    """Killed in the epoch in which it is found out, before and after that, and in a later one."""
    whole = fitted("last stage", "always", RareNoise(24))
    first = tuner_for("last stage", "always")
    with pytest.raises(Cut):
        first.fit(
            RareNoise(24), batch_size=4, epochs=3, run=tmp_path / "run", checkpoint_every=1, callbacks=CutAfter(steps)
        )
    second = tuner_for("last stage", "always")
    second.fit(RareNoise(24), batch_size=4, epochs=3, run=tmp_path / "run")
    assert digests(second) == digests(whole) and numbers(second) == numbers(whole)


def test_augmented_samples_that_lie_at_the_end_are_found_beforehand(capsys: pytest.CaptureFixture[str]) -> None:
    class Sorted(Images):
        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            image, target = super().__getitem__(index)
            return (image + torch.randn(image.shape), target) if index >= 16 else (image, target)

    fitted("last stage", "always", Sorted(24))
    assert SAID not in capsys.readouterr().out


def test_a_generator_of_its_own_is_found_out_in_the_second_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    fitted("last stage", "always", OwnNoise(24), epochs=3)
    said = capsys.readouterr().out
    assert SAID in said and f"{GIVEN_UP}: the data give other samples than in the pass before" in said


@pytest.mark.parametrize(("make", "callback"), [(Images, Brighter), (Shifted, Relabels)])
def test_what_a_callback_does_to_the_data_counts(make: Any, callback: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stored, ordinary = both(make, callback)
    assert GIVEN_UP in capsys.readouterr().out
    assert digests(stored) == digests(ordinary) and numbers(stored) == numbers(ordinary)


def test_views_are_kept_though_each_is_random(capsys: pytest.CaptureFixture[str]) -> None:
    fitted("last stage", "always", RareNoise(24), epochs=4, augmented_views=2)
    said = capsys.readouterr().out
    assert SAID in said and GIVEN_UP not in said


def test_texts_are_the_same_ones_however_they_are_padded() -> None:
    texts = Texts(20)
    loader = DataLoader(texts, batch_size=20)
    probes = Probes(loader)
    probes.note(next(iter(loader)))
    assert {len(texts.words[index]) for index in probes._kept} != {12}, "none is padded"
    assert not probes.differ(1) and not probes.differ(2)
    for words in texts.words:
        words[0] += 1
    assert probes.differ(3)


@pytest.mark.parametrize("on_bad", ["skip", "raise"])
def test_samples_that_can_no_longer_be_read_are_not_asked_for(on_bad: str) -> None:
    class Files(Images):
        gone, on_bad = False, "raise"

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            if self.gone:
                raise UnreadableSampleError("the file is gone")
            return super().__getitem__(index)

    files = Files(20)
    files.on_bad = on_bad
    loader = DataLoader(files, batch_size=20)
    probes = Probes(loader)
    probes.note(next(iter(loader)))
    files.gone = True
    assert not any(probes.differ(epoch) for epoch in range(1, 5))


def test_samples_with_nan_are_the_same_ones() -> None:
    images = Images(20)
    images.images[3, 0, 0, 0] = torch.nan
    loader = DataLoader(images, batch_size=20)
    probes = Probes(loader)
    probes.note(next(iter(loader)))
    assert not probes.differ(1) and not probes.differ(2)
    images.images[:, 0] += 1.0
    assert probes.differ(3)


class Logged(Callback):
    """Registers a hook once the first epoch is over."""

    def __init__(self, seen: list[int]) -> None:
        self.seen = seen

    def on_epoch_begin(self, epoch: int, logs: Any) -> None:
        if epoch == 1:
            stem = next(part for part in self.run.model.modules() if isinstance(part, nn.Conv2d))
            stem.register_forward_hook(lambda module, inputs, output: self.seen.append(len(output)))


def test_hooks_that_come_later_are_called(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []
    fitted("last stage", "always", Images(24), callbacks=[Logged(seen)], epochs=3)
    assert GIVEN_UP in capsys.readouterr().out
    assert sum(size for size in seen if size == 4) == 2 * 24  # the batches; two samples are a look at the layout


@pytest.mark.parametrize("where", ["", "pool"])
def test_hooks_on_the_model_itself_and_on_its_pooling_are_called_for_every_pass(where: str) -> None:
    model = seeded(Convolutional)
    for parameter in model.trunk.parameters():
        parameter.requires_grad_(False)
    model.eval()
    split(model, torch.randn(2, 3, 16, 16))
    model.get_submodule(where).register_forward_hook(lambda module, inputs, output: None)
    with pytest.raises(NotSplittable, match="hooks"):
        split(model, torch.randn(2, 3, 16, 16))
    model = seeded(Convolutional)
    model.head.register_forward_hook(lambda module, inputs, output: None)
    split(model.eval().requires_grad_(False), torch.randn(2, 3, 16, 16))


@pytest.mark.parametrize("own", [True, False])
def test_loaders_that_drop_their_last_samples_train_on_all_in_turn(own: bool) -> None:
    """26 samples in batches of 8: two are left out of each epoch, other ones each time."""
    tuners = []
    for use in ("always", "never"):
        data = Images(26)
        loader = DataLoader(data, batch_size=8, drop_last=True) if own else TorchDataLoader(data, 8, drop_last=True)
        tuners.append(fitted("last stage", use, loader, epochs=4))
    stored, ordinary = tuners
    assert digests(stored) == digests(ordinary) and numbers(stored) == numbers(ordinary)


def test_a_disk_that_fails_costs_the_store_and_not_the_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put, calls = RowStore.put, []

    def failing(self: RowStore, indices: Tensor, boundary: dict[str, Tensor]) -> None:
        calls.append(len(indices))
        if len(calls) > 3:
            raise OSError(errno.EIO, "the disk is gone")
        put(self, indices, boundary)

    monkeypatch.setattr(RowStore, "put", failing)
    stored = fitted("last stage", "always", Images(24))
    monkeypatch.undo()
    assert "the disk is gone" in capsys.readouterr().out
    assert digests(stored) == digests(fitted("last stage", "never", Images(24)))


def test_a_cache_folder_that_cannot_be_made_is_no_reason_to_stop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NEURENIX_HOME", str(tmp_path / "file"))
    from neurenix.training.prefix import reusing

    monkeypatch.setattr(reusing, "free_memory", lambda device: 0.0)  # so that rows would go there
    stored = fitted("last stage", "always", Images(24))
    assert "there is no room" in capsys.readouterr().out
    monkeypatch.undo()
    assert digests(stored) == digests(fitted("last stage", "never", Images(24)))


@pytest.mark.parametrize(
    ("lowest", "highest", "kept"),
    [(0, 20, torch.uint8), (-100, 20, torch.int16), (-1, 254, torch.int16), (0, 70_000, torch.int32)],
)
def test_numbers_of_pixels_take_few_bytes(lowest: int, highest: int, kept: torch.dtype) -> None:
    masks = torch.randint(0, highest, (4, 3, 5))
    masks[0, 0, 0], masks[1, 0, 0] = lowest, highest
    rows, places = TargetRows(8), torch.tensor([6, 1, 3, 0])
    rows.put(places[2:], masks[2:].clamp(0, 5))
    rows.put(places[:2], masks[:2])
    assert rows._tables[""]._rows.dtype == kept and bytes_of_targets(masks) == masks.numel() * kept.itemsize
    assert torch.equal(rows.get(places[:2]), masks[:2]) and rows.get(places).dtype == torch.int64


def test_targets_that_do_not_fit_into_memory_are_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from neurenix.training.prefix import reusing

    monkeypatch.setattr(reusing, "_ALWAYS", 0)
    monkeypatch.setattr(reusing, "free_memory", lambda device: 100.0)
    fitted("last stage", "always", Images(24))
    assert "the targets of all samples are 0.0 GiB, too much for memory" in capsys.readouterr().out
