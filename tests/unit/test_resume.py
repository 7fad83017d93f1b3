"""A fit that is cut anywhere and called again ends with the same bits."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn

from neurenix.callbacks import Callback, CSVLogger, EarlyStopping, ModelCheckpoint
from neurenix.errors import (
    ConfigurationError,
    DamagedCheckpointWarning,
    NonBitExactResumeWarning,
    ResumeError,
)
from neurenix.storage import tensor_digest
from neurenix.training import RunFolder
from neurenix.transfer import Finetuner


class Cut(Exception):
    """Stands for a kill."""


class CutAfter(Callback):
    """Ends the process, as it were, after so many steps of this process, before anything is saved of the last."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise Cut


class Count(Callback):
    """Steps of this process."""

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self.steps += 1


def network() -> nn.Module:
    """Convolution, batch norm, dropout, head: what has a state or draws at random."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
        nn.Sequential(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Dropout(0.3),
        nn.Linear(8, 3),
    )


class Noisy(torch.utils.data.Dataset[Any]):
    """Augmentation at random: every sample is another one in every epoch."""

    def __init__(self, count: int = 26) -> None:
        self.images = torch.randn(count, 3, 9, 9, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image = self.images[index]
        return image + 0.1 * torch.randn(image.shape) + float(numpy.random.rand()), index % 3


def digests(tuner: Finetuner) -> dict[str, str]:
    state = {name: tensor_digest(tensor) for name, tensor in tuner.model.state_dict().items()}
    for name, parameter in tuner.model.named_parameters():
        for key, value in tuner.optimizer.state.get(parameter, {}).items():
            state[f"{name}:{key}"] = tensor_digest(value) if isinstance(value, torch.Tensor) else repr(value)
    return state


def numbers(tuner: Finetuner) -> list[dict[str, Any]]:
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in tuner.history.epochs]


def fit(
    run: Path, cut: int | None = None, workers: int = 0, tuner: Finetuner | None = None, **options: Any
) -> Finetuner:
    callbacks = [*options.pop("callbacks", []), *([CutAfter(cut)] if cut else [])]
    settings = {"learning_rate": 0.01, "clip_norm": None, "metrics": ["accuracy", "auroc"], "num_classes": 3}
    tuner = tuner or Finetuner(network(), **{**settings, **options})
    tuner.fit(
        Noisy(), Noisy(9), batch_size=4, epochs=4, callbacks=callbacks, num_workers=workers, run=run, checkpoint_every=1
    )
    return tuner


def cut_and_go_on(run: Path, cuts: tuple[int, ...], workers: tuple[int, ...] = (0,), **options: Any) -> Finetuner:
    """Cut after so many steps each time. The step that was cut is done again, and no other."""
    for cut, count in zip(cuts, itertools.cycle(workers)):
        with pytest.raises(Cut):
            fit(run, cut=cut, workers=count, **options)
    counter = Count()
    tuner = fit(run, workers=workers[-1], **{**options, "callbacks": [*options.get("callbacks", []), counter]})
    per_epoch = 3 if "accumulation_steps" in options else 7
    assert counter.steps == 4 * per_epoch - sum(cut - 1 for cut in cuts)
    return tuner


COMBINATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mixup": {"mixup_alpha": 0.3},
    "accumulation": {"accumulation_steps": 3},
    "ema": {"ema_decay": 0.9},
    "bf16": {"precision": "bf16"},
    "progressive": {"strategy": "progressive"},
    "plateau": {"strategy": "progressive", "unfreeze_by": "plateau", "schedule": "plateau"},
    "lp_ft": {"strategy": "lp_ft"},
    "sgd": {"optimizer": "sgd"},
    "adafactor": {"optimizer": "adafactor"},
    "clipped": {"clip_norm": 0.1, "label_smoothing": 0.1, "class_weights": "balanced"},
    "all": {"mixup_alpha": 0.3, "accumulation_steps": 3, "ema_decay": 0.9, "strategy": "progressive"},
}


@pytest.mark.parametrize("options", COMBINATIONS.values(), ids=COMBINATIONS)
def test_cut_anywhere_ends_with_the_same_bits(options: dict[str, Any], tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", **options)
    cuts = (1, 2, 3) if "accumulation_steps" in options else (3, 5, 6, 2)
    resumed = cut_and_go_on(tmp_path / "cut", cuts, **options)
    assert digests(resumed) == digests(whole)
    assert numbers(resumed) == numbers(whole)


@pytest.mark.parametrize("workers", [(2, 2), (0, 2), (2, 0, 1)], ids=str)
def test_any_number_of_workers(workers: tuple[int, ...], tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", mixup_alpha=0.3)
    resumed = cut_and_go_on(tmp_path / "cut", (5, 9), workers, mixup_alpha=0.3)
    assert digests(resumed) == digests(whole)


def test_layers_unfrozen_between_two_fits(tmp_path: Path) -> None:
    def two_fits(folder: Path, cut: int | None) -> Finetuner:
        tuner = fit(folder / "first", freeze_layers=["0"])
        tuner.unfreeze_layers(["0"])
        return fit(folder / "second", cut=cut, tuner=tuner)

    whole = two_fits(tmp_path / "whole", None)
    with pytest.raises(Cut):
        two_fits(tmp_path / "cut", 9)
    resumed = two_fits(tmp_path / "cut", None)
    assert digests(resumed) == digests(whole) and len(resumed.history) == 8


def test_callbacks_go_on(tmp_path: Path) -> None:
    def callbacks(folder: Path) -> list[Callback]:
        return [
            EarlyStopping(monitor="val_loss", patience=1, restore_best_weights=True),
            ModelCheckpoint(folder / "best", monitor="val_loss", save_best_only=True),
            CSVLogger(folder / "log.csv"),
        ]

    options = {"learning_rate": 0.3, "ema_decay": 0.5}
    whole = fit(tmp_path / "a", callbacks=callbacks(tmp_path / "a"), **options)
    with pytest.raises(Cut):
        fit(tmp_path / "b", cut=16, callbacks=callbacks(tmp_path / "b"), **options)
    resumed = fit(tmp_path / "b", callbacks=callbacks(tmp_path / "b"), **options)
    assert digests(resumed) == digests(whole)
    assert Finetuner.load(tmp_path / "a" / "best", model=network()).history.epochs[-1]["val_loss"] == pytest.approx(
        Finetuner.load(tmp_path / "b" / "best", model=network()).history.epochs[-1]["val_loss"], abs=0
    )
    rows = [(tmp_path / name / "log.csv").read_text().splitlines() for name in "ab"]
    assert len(rows[0]) == len(rows[1]) == len(whole.history) + 1


def test_a_finished_run_is_taken_as_it_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = fit(tmp_path / "run", ema_decay=0.9)
    counter = Count()
    again = fit(tmp_path / "run", ema_decay=0.9, callbacks=[counter])
    assert "is finished" in capsys.readouterr().out and counter.steps == 0
    assert digests(again) == digests(whole) and numbers(again) == numbers(whole)
    loaded = Finetuner.load(tmp_path / "run", model=network())
    inputs = torch.stack([Noisy()[index][0] for index in range(4)])
    assert numpy.array_equal(loaded.predict_proba(inputs), whole.predict_proba(inputs))


def test_a_run_without_a_name_is_found_again(runs_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Cut):
        fit(None, cut=5)
    with pytest.raises(Cut):
        fit(None, cut=5, learning_rate=0.02)
    assert len(list(runs_folder.iterdir())) == 2
    whole = fit(None)
    assert "going on after step 4" in capsys.readouterr().out
    runs = {json.loads((path / "run.json").read_text())["status"]: path for path in runs_folder.iterdir()}
    assert set(runs) == {"finished", "running"}
    assert not list(runs["finished"].glob("checkpoints/*"))
    assert len(Finetuner.load(runs["finished"], model=network()).history) == len(whole.history) == 4
    with pytest.raises(ConfigurationError, match="not finished"):
        Finetuner.load(runs["running"], model=network())


def test_another_job_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Cut):
        fit(tmp_path / "run", cut=5)
    with pytest.raises(ResumeError, match=r"learning_rate 0.01, now 0.02"):
        fit(tmp_path / "run", learning_rate=0.02)
    with pytest.raises(ResumeError, match=r"first training batch"):
        Finetuner(network(), 3, learning_rate=0.01, clip_norm=None, metrics=["accuracy", "auroc"]).fit(
            [(image + 1, index % 3) for index, image in enumerate(Noisy().images)], Noisy(9), 4, 4, run=tmp_path / "run"
        )
    assert len(fit(tmp_path / "run").history) == 4


def test_resume_says_what_is_wanted(tmp_path: Path) -> None:
    tuner = Finetuner(network(), 3)
    with pytest.raises(ResumeError, match="there is no run to resume in .*nowhere"):
        tuner.fit(Noisy(), resume=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(ResumeError, match="there is no run to resume in .* for this job"):
        tuner.fit(Noisy(), resume=True)
    with pytest.raises(ResumeError, match="two folders"):
        tuner.fit(Noisy(), run=tmp_path / "a", resume=tmp_path / "b")
    with pytest.raises(ConfigurationError, match="run=False keeps nothing"):
        tuner.fit(Noisy(), run=False, resume=True)
    fit(tmp_path / "run")
    counter = Count()
    tuner.fit(Noisy(), epochs=1, run=tmp_path / "run", resume=False, callbacks=[counter])
    assert counter.steps == 1


def test_no_folder_when_none_is_wanted(tmp_path: Path, runs_folder: Path) -> None:
    Finetuner(network(), 3).fit(Noisy(), epochs=1, run=False)
    assert not list(runs_folder.iterdir())


def test_what_changes_the_last_bits_is_named(tmp_path: Path) -> None:
    with pytest.raises(Cut):
        fit(tmp_path / "run", cut=5)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["environment"] |= {"torch": "2.1.0", "threads": 64}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    tuner = Finetuner(network(), 3, learning_rate=0.01, clip_norm=None, metrics=["accuracy", "auroc"])
    with pytest.raises(ResumeError, match=r"torch 2.1.0, now .*; threads 64, now 1"):
        tuner.fit(Noisy(), Noisy(9), 4, 4, run=tmp_path / "run", strict=True)
    with pytest.warns(NonBitExactResumeWarning, match=r"torch 2.1.0, now .*; threads 64, now 1"):
        fit(tmp_path / "run")


def damages(path: Path) -> list[Callable[[], None]]:
    """20 truncations, 50 flipped bytes, a missing file, an empty one."""
    content = path.read_bytes()

    def flip(place: int) -> None:
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])

    lengths = [len(content) * part // 20 for part in range(20)]
    places = [len(content) * part // 50 for part in range(50)]
    return [
        *(lambda length=length: path.write_bytes(content[:length]) for length in lengths),
        *(lambda place=place: flip(place) for place in places),
        path.unlink,
        lambda: path.write_bytes(b""),
    ]


def test_every_damaged_checkpoint_is_found(tmp_path: Path) -> None:
    with pytest.raises(Cut):
        fit(tmp_path / "run", cut=5)
    folder = RunFolder(tmp_path / "run", named=True).checkpoints()
    older, newest = sorted((tmp_path / "run" / "checkpoints").iterdir())
    content, missing = newest.read_bytes(), 0
    kinds = damages(newest)
    for damage in kinds:
        newest.write_bytes(content)
        damage()
        missing += not newest.exists()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert folder.newest() == older
        if missing == 0:
            assert [entry.category for entry in caught] == [DamagedCheckpointWarning]
            assert newest.name[:24] in str(caught[0].message) and older.name[:24] in str(caught[0].message)
        missing = 0
    assert len(kinds) == 72


def test_a_damaged_checkpoint_costs_one_step_and_no_bit(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole")
    with pytest.raises(Cut):
        fit(tmp_path / "run", cut=9)
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(DamagedCheckpointWarning, match="step-00000008"):
        resumed = fit(tmp_path / "run")
    assert digests(resumed) == digests(whole)


def test_a_notebook_goes_on_with_the_same_object(tmp_path: Path) -> None:
    """The weights have moved since the run began; the checkpoint holds all that matters."""
    whole = fit(tmp_path / "whole", ema_decay=0.9, freeze_layers=["0"])
    settings = {"learning_rate": 0.01, "clip_norm": None, "metrics": ["accuracy", "auroc"], "ema_decay": 0.9}
    tuner = Finetuner(network(), 3, freeze_layers=["0"], **settings)
    with pytest.raises(Cut):
        fit(tmp_path / "run", cut=10, tuner=tuner)
    with pytest.raises(ResumeError, match="weights at the start"):
        fit(tmp_path / "run", tuner=tuner)
    tuner.fit(Noisy(), Noisy(9), batch_size=4, epochs=4, resume=tmp_path / "run", checkpoint_every=1)
    assert digests(tuner) == digests(whole) and numbers(tuner) == numbers(whole)


def test_a_model_with_other_frozen_weights_cannot_go_on(tmp_path: Path) -> None:
    with pytest.raises(Cut):
        fit(tmp_path / "run", cut=5, freeze_layers=["0"])
    settings = {"learning_rate": 0.01, "clip_norm": None, "metrics": ["accuracy", "auroc"]}
    tuner = Finetuner(network(), 3, freeze_layers=["0"], **settings)
    with torch.no_grad():
        tuner.model.state_dict()["trunk.module.0.0.weight"].fill_(1.0)
    with pytest.raises(ResumeError, match=r"differ in this model from what was loaded .*0\.0\.weight"):
        tuner.fit(Noisy(), Noisy(9), batch_size=4, epochs=4, resume=tmp_path / "run")


def test_resume_check_proves_it_or_names_what_differs(runs_folder: Path) -> None:
    tuner = Finetuner(network(), 3, mixup_alpha=0.3, strategy="progressive", ema_decay=0.9)
    before = digests(tuner)
    good = tuner.resume_check(Noisy(), Noisy(9), batch_size=4, callbacks=EarlyStopping())
    assert good and "6 steps, whole and killed in steps 1 and 3: the same bits" in str(good)
    assert digests(tuner) == before and not list(runs_folder.iterdir())

    class Secret(Noisy):
        """Draws from a generator of its own, which nobody can know of."""

        def __init__(self) -> None:
            super().__init__()
            self.generator = numpy.random.default_rng(0)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            image, target = super().__getitem__(index)
            return image * float(self.generator.random()), target

    class Counting(Callback):
        """Makes the head a little larger every third step that it sees, and does not tell."""

        steps = 0

        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            self.steps += 1
            if self.steps % 3 == 0:
                with torch.no_grad():
                    self.run.model.head.weight.mul_(1.5)  # type: ignore[attr-defined]

    bad = Finetuner(network(), 3).resume_check(Noisy(), batch_size=4, callbacks=[Counting()])
    assert not bad and "things differ (0.0.weight, 0.0.bias, 0.1.weight" in str(bad)
    bad = Finetuner(network(), 3).resume_check(Secret(), batch_size=4)
    assert not bad and "first training batch" in str(bad) and "generator of its own" in str(bad)
