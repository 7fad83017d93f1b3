"""A fit whose frozen layers run once for each sample ends as one whose layers run in every epoch."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.prefix.fits import (
    TEXTS,
    Convolutional,
    Cut,
    CutAfter,
    Flickering,
    Images,
    Texts,
    digests,
    fitted,
    gap,
    numbers,
)
from torch import Tensor, nn

from neurenix.backends import _work
from neurenix.callbacks import Callback
from neurenix.errors import SkippedSamplesWarning, UnreadableSampleError
from neurenix.training.prefix import reusing
from neurenix.transfer import Finetuner

SAID = "the frozen layers run once for each of"
LOOKS = 40  # samples that are read for a look at them, before the first epoch and again after it
NOT = "the frozen layers run in every"  # pass, or epoch


def both(name: str, train: Callable[[], Any], validation: Callable[[], Any] | None = None, **options: Any) -> Any:
    """(stored, ordinary): the same fit in both ways, after a check that rows were stored in the first only."""
    tuners, reads = [], []
    for use in ("always", "never"):
        data = train()
        tuners.append(fitted(name, use, data, validation and validation(), **options))
        reads.append(data.reads)
    epochs, views = options.get("epochs", 3), options.get("augmented_views", 1)
    solving = options.get("strategy") == "lp_ft"  # reads them once before
    assert reads[0] - LOOKS < (views + solving) * len(data) and reads[1] >= epochs * len(data), (
        "samples are not read once in the first fit, or not ever again in the other"
    )
    return tuners


def assert_the_same(stored: Finetuner, ordinary: Finetuner, bits: bool) -> None:
    """Histories and weights agree to 1e-6; bits: and in every bit, moments and buffers included."""
    largest = gap(stored, ordinary)
    print(f"largest difference: {largest:.1e}")
    assert largest < 1e-6
    start = ordinary.history.epochs[0]["loss"]
    assert abs(ordinary.history.epochs[-1]["loss"] - start) > 1e-3, "nothing was learned that could differ"
    if bits:
        assert digests(stored) == digests(ordinary) and numbers(stored) == numbers(ordinary)


# name, samples, batch size, validated, bits. A batch of another size may be rounded in another way by the libraries,
# as may a text in a batch with longer ones; all else is the same numbers in the same operations.
CASES = [
    ("last stage", 24, 4, True, True),
    ("last stage", 25, 4, False, False),  # the last batch has one sample
    ("last stage", 26, 7, False, False),
    ("head", 24, 4, True, True),
    ("head", 25, 4, False, False),
    ("skip", 25, 7, False, False),
    ("vit", 21, 7, False, True),
    ("words", 25, 4, True, False),
    ("words", 23, 7, False, False),
    ("bert", 25, 4, False, False),
    ("gpt2", 22, 7, False, False),
    ("t5", 22, 7, False, False),
]


@pytest.mark.parametrize(("name", "samples", "batch_size", "validated", "bits"), CASES)
def test_the_same_is_learned(name: str, samples: int, batch_size: int, validated: bool, bits: bool) -> None:
    data = Texts if name in TEXTS else Images
    validation = (lambda: data(9, seed=1)) if validated else None
    stored, ordinary = both(name, lambda: data(samples), validation, batch_size=batch_size)
    assert_the_same(stored, ordinary, bits)


VARIATIONS: dict[str, dict[str, Any]] = {
    "accumulation": {"accumulation_steps": 3},
    "moving average": {"ema_decay": 0.9},
    "bf16": {"precision": "bf16"},
    "pretrained statistics": {"norm_statistics": "pretrained"},
    "adam": {"optimizer": "adam", "learning_rate": 0.003},
    "smoothing": {"label_smoothing": 0.1, "class_weights": "balanced"},
    "lp_ft with a frozen stem": {"strategy": "lp_ft", "freeze_layers": ["stem"]},
}


@pytest.mark.parametrize("options", VARIATIONS.values(), ids=VARIATIONS)
def test_however_it_is_trained(options: dict[str, Any]) -> None:
    stored, ordinary = both("last stage", lambda: Images(24), **options)
    assert_the_same(stored, ordinary, bits=True)


@pytest.mark.parametrize("strategy", ["head", "lp_ft"])
def test_a_head_solved_on_the_same_features(strategy: str) -> None:
    """The features that the head is solved on are the rows: the layers run once for both."""
    frozen = [] if strategy == "head" else ["stem", "middle", "last"]
    options = {"strategy": strategy, "freeze_layers": frozen, "learning_rate": 0.5}
    data = Images(24)
    tuners = [fitted("head", use, data, Images(8, seed=1), **options) for use in ("always", "never")]
    assert_the_same(*tuners, bits=False)


@pytest.mark.parametrize(
    ("options", "fillings"),
    [
        ({"epochs": 8, "freeze_layers": []}, 3),  # in the last phase nothing is frozen
        ({"epochs": 7, "freeze_layers": ["stem"], "unfreeze_by": "plateau", "learning_rate": 0.5}, 2),
    ],
    ids=["by epoch", "by plateau"],
)
def test_the_store_is_filled_anew_where_the_boundary_moves(
    options: dict[str, Any], fillings: int, capsys: pytest.CaptureFixture[str]
) -> None:
    options |= {"strategy": "progressive"}
    tuners = []
    for use in ("always", "never"):
        tuners.append(fitted("last stage", use, Images(24), Images(8, seed=1), **options))
        said = capsys.readouterr().out
        assert said.count(f"{SAID} 24 ") == (fillings if use == "always" else 0), said
    assert len(set(tuners[0].history["phase"])) >= fillings
    assert_the_same(*tuners, bits=True)


class Relabelling(Flickering):
    """Now and then the label is a random one too."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, target = super().__getitem__(index)
        return image, int(torch.randint(3, ())) if torch.rand(()) < 0.3 else target


@pytest.mark.parametrize("name", ["last stage", "head"])
def test_views_come_in_turn(name: str) -> None:
    stored, ordinary = both(
        name, lambda: Relabelling(24), lambda: Images(8, seed=1), augmented_views=3, epochs=8, learning_rate=0.2
    )
    assert_the_same(stored, ordinary, bits=True)
    other = fitted(name, "never", Relabelling(24), augmented_views=2, epochs=8, learning_rate=0.2)
    assert abs(other.history["loss"][-1] - ordinary.history["loss"][-1]) > 1e-5  # which views there are matters


def test_views_of_a_second_fit_begin_where_the_first_ended() -> None:
    """Four epochs, then five more: the views of the second fit's first epochs are 1, 2, 0."""
    tuners = []
    for use in ("always", "never"):
        data = Flickering(24)
        tuner = fitted("last stage", use, data, augmented_views=3, epochs=4)
        tuner.fit(data, batch_size=4, epochs=5, run=False)
        tuners.append(tuner)
    assert len(tuners[0].history) == 9
    assert_the_same(*tuners, bits=True)


def test_layers_unfrozen_between_two_fits() -> None:
    tuners = []
    for use in ("always", "never"):
        tuner = fitted("last stage", use, Images(24))
        tuner.unfreeze_layers(["middle"])
        tuner.fit(Images(24), Images(8, seed=1), batch_size=4, epochs=3, run=False)
        tuners.append(tuner)
    assert_the_same(*tuners, bits=True)


def test_any_number_of_workers() -> None:
    one, two = (fitted("last stage", "always", Flickering(24), augmented_views=2, num_workers=n) for n in (0, 2))
    assert digests(one) == digests(two)


@pytest.mark.parametrize("storage", ["bf16", "int8"])
def test_rounded_rows_train_nearly_the_same(storage: str) -> None:
    stored, ordinary = both("last stage", lambda: Images(24), prefix_storage=storage)
    assert 1e-7 < gap(stored, ordinary) < {"bf16": 3e-2, "int8": 6e-2}[storage]


def test_rows_in_a_file_are_rows_all_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reusing, "free_memory", lambda device: 0.0)
    for name, data in (("last stage", Images), ("words", Texts)):
        stored, ordinary = both(name, lambda data=data: data(22), batch_size=7)
        assert_the_same(stored, ordinary, bits=False)
        assert f"MiB in {home / 'prefix'}" in capsys.readouterr().out
    assert not [path for path in home.rglob("*") if path.is_file()]


# --- what cannot be stored is trained the ordinary way, and said -----------------------------------------------


def assert_ordinary(name: str, said: str | None, capsys: pytest.CaptureFixture[str], **options: Any) -> None:
    """Fits alike with "always" and "never", bit by bit; said: by "always", once and alone; None for nothing."""
    data = options.pop("data", Images)
    size = options.pop("samples", 24)
    tuners = []
    for use in ("always", "never"):
        capsys.readouterr()
        tuners.append(fitted(name, use, data(size), **options))
        lines = [line for line in capsys.readouterr().out.splitlines() if "frozen layers" in line]
        if use == "never" or said is None:
            assert lines == []
        else:
            assert len(lines) == 1 and NOT in lines[0] and said in lines[0], lines
    assert digests(tuners[0]) == digests(tuners[1]) and numbers(tuners[0]) == numbers(tuners[1])


def test_mixup_runs_them_in_every_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    assert_ordinary("last stage", "mixup mixes the inputs", capsys, mixup_alpha=0.3)


def test_random_transforms_without_views_run_them_in_every_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    assert_ordinary("last stage", "augmented_views", capsys, data=Flickering)


def test_one_epoch_and_no_frozen_layers_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert_ordinary("last stage", None, capsys, epochs=1)
    assert_ordinary("last stage", None, capsys, freeze_layers=[])
    assert_ordinary("last stage", None, capsys, data=Flickering, augmented_views=3, epochs=3)  # each view once


def test_one_sample_a_batch_runs_them_in_every_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    assert_ordinary("last stage", "one sample in a batch", capsys, batch_size=1, samples=6)


class Branching(Convolutional):
    """What is computed depends on the numbers."""

    def forward(self, images: Tensor) -> Tensor:
        below = self.middle(self.stem(images))
        above = self.last(below) if below.mean() > 0 else self.last(-below)
        return self.fc(above.mean((2, 3)))


def test_control_flow_that_depends_on_data_runs_them_in_every_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    assert_ordinary("last stage", "torch.export cannot read", capsys, make=Branching)


class Hooked(Convolutional):
    """Prunes what its middle gives, as tools of others do."""

    def __init__(self) -> None:
        super().__init__()
        self.middle.register_forward_hook(_halved)


def _halved(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output * 0.5


def test_hooks_run_them_in_every_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    assert_ordinary("last stage", "hooks", capsys, make=Hooked)


def test_a_first_layer_that_is_trained_runs_them_in_every_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    assert_ordinary("words", "its first layers are trained", capsys, freeze_layers=["layer"], data=Texts)


def test_data_that_do_not_tell_their_lengths_run_them_in_every_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    class Silent(Texts):
        """Known by its collate alone."""

        def __init__(self, count: int) -> None:
            super().__init__(count)
            self.lengths = None

    assert_ordinary("words", "how many tokens", capsys, data=Silent)


def test_no_room_runs_them_in_every_epoch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(reusing, "free_memory", lambda device: 0.0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    assert_ordinary("last stage", "No space left", capsys)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 100, 100))  # type: ignore[attr-defined]
    assert_ordinary("last stage", "too much for memory and for", capsys)


class Wide(nn.Module):
    """Cheap frozen layers with a large answer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Conv2d(3, 12, 1)
        self.fc = nn.Linear(12 * 16 * 16, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.scale(images).flatten(1))


class Polished(nn.Module):
    """Frozen layers with hardly an operation that is counted, which write a lot, and a small answer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Sequential(nn.Conv2d(3, 12, 1), *(nn.Hardswish() for _ in range(8)), nn.AvgPool2d(4))
        self.fc = nn.Linear(12 * 4 * 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.scale(images).flatten(1))


def test_what_layers_write_is_work_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"make": Polished, "freeze_layers": ["scale"], "head_hidden_sizes": (64,)}
    fitted("head", "auto", Images(24), **options)
    assert SAID in capsys.readouterr().out
    monkeypatch.setattr(_work, "_PER_BYTE", 0.0)
    fitted("head", "auto", Images(24), **options)
    assert "storing what they give would make it" in capsys.readouterr().out


def test_auto_stores_where_it_pays_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = {"make": Wide, "freeze_layers": ["scale"]}
    auto = fitted("head", "auto", Images(24), **wide)
    assert "storing what they give would make it 0." in capsys.readouterr().out
    assert digests(auto) == digests(fitted("head", "never", Images(24), **wide))

    data = Images(24)
    fitted("head", "auto", data, epochs=5)  # all but a small head is frozen, and a row is small
    assert SAID in capsys.readouterr().out and data.reads < 24 + LOOKS

    data = Images(24)
    fitted("last stage", "auto", data, epochs=5)  # nothing to save that were worth a tracing, nor a word
    assert "frozen layers" not in capsys.readouterr().out and data.reads > 120
    monkeypatch.setattr(reusing, "_SECONDS", 0.0)
    fitted("last stage", "auto", data, epochs=5)
    assert "storing what they give would make it" in capsys.readouterr().out


def test_batches_that_speak_of_each_other_run_them_in_every_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    class Centred(Convolutional):
        """What a sample gives depends on the others in its batch."""

        def forward(self, images: Tensor) -> Tensor:
            below = self.middle(self.stem(images))
            return self.fc(self.last(below - below.mean(0)).mean((2, 3)))

    assert_ordinary("last stage", "depends on the others", capsys, make=Centred)
    assert_ordinary("head", "depends on the others", capsys, make=Centred)


# --- samples that cannot be read -----------------------------------------------------------------------------------


class Broken(Images):
    """Two samples in a hundred are no images."""

    on_bad = "skip"

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index in (13, 77):
            raise UnreadableSampleError(f"{index} is broken")
        return super().__getitem__(index)


class Seen(Callback):
    """Samples in each epoch, as the steps count them."""

    def __init__(self) -> None:
        self.samples: list[int] = []
        self._last = 0

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self._last = logs["samples"]

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        self.samples.append(self._last)


def with_broken_samples(tmp_path: Path, use: str, **options: Any) -> tuple[Finetuner, list[int], str]:
    """(tuner, samples of each epoch, the list of those left out)."""
    seen = Seen()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkippedSamplesWarning)
        tuner = fitted("last stage", use, Broken(200), batch_size=20, callbacks=[seen], run=tmp_path / use, **options)
    return tuner, seen.samples, (tmp_path / use / "skipped.jsonl").read_text()


def test_samples_that_cannot_be_read_are_left_out_in_every_epoch(tmp_path: Path) -> None:
    stored, counts, skipped = with_broken_samples(tmp_path, "always")
    ordinary, others, listed = with_broken_samples(tmp_path, "never")
    assert counts == others == [198, 198, 198]
    assert skipped == listed and "13 is broken" in listed and "77 is broken" in listed
    assert gap(stored, ordinary) < 1e-6


# --- cut and gone on with -------------------------------------------------------------------------------------------


def cut_and_go_on(folder: Path, cuts: tuple[int, ...], between: Callable[[], object], **options: Any) -> Finetuner:
    """Cut after so many steps each time; `between` comes before each new beginning."""
    options = {"run": folder, "checkpoint_every": 1, "epochs": 4, **options}
    train, validation = options.pop("data", Images)(25), Images(8, seed=1) if options.pop("validated", False) else None
    name = options.pop("name", "last stage")
    for cut in cuts:
        with pytest.raises(Cut):
            fitted(name, "always", train, validation, **options, callbacks=[CutAfter(cut)])
        between()
    return fitted(name, "always", train, validation, **options)


RESUMED: dict[str, dict[str, Any]] = {
    "last stage": {},
    "head": {"name": "head", "validated": True},
    "solved head": {"name": "head", "strategy": "head", "freeze_layers": []},
    "views of a stage": {"data": Flickering, "augmented_views": 2},
    "views of a head": {"name": "head", "data": Flickering, "augmented_views": 3},
    "progressive": {"strategy": "progressive", "freeze_layers": ["stem"]},
    "moving average": {"name": "head", "ema_decay": 0.9, "accumulation_steps": 2},
}


@pytest.mark.parametrize("name", RESUMED)
def test_cut_anywhere_it_ends_with_the_same_bits(name: str, tmp_path: Path, home: Path) -> None:
    """Seven steps to an epoch, four with accumulation: in the filling one, and after it."""
    options = RESUMED[name]
    whole = cut_and_go_on(tmp_path / "whole", (), lambda: None, **options)
    cuts = {"progressive": (10, 3), "moving average": (2, 5, 2)}.get(name, (3, 8, 3))
    for lost in (True, False) if name == "head" else (True,):
        shutil.rmtree(home, ignore_errors=True)
        between = (lambda: shutil.rmtree(home, ignore_errors=True)) if lost else (lambda: None)
        resumed = cut_and_go_on(tmp_path / f"cut {lost}", cuts, between, **options)
        assert digests(resumed) == digests(whole) and numbers(resumed) == numbers(whole)


def test_resume_check_proves_it(home: Path) -> None:
    tuner = fitted("head", "always", Images(24))
    before = digests(tuner)
    assert tuner.resume_check(Images(24), Images(8, seed=1), batch_size=4)
    assert digests(tuner) == before


def test_the_generators_of_the_caller_are_left_alone() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        state = torch.get_rng_state()
        fitted("last stage", "always", Images(24))
        assert torch.equal(torch.get_rng_state(), state)
