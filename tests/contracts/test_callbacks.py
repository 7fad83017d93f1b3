"""Every callback against a run that is none, and each one's own promise."""

from __future__ import annotations

import csv
import inspect
import io
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from neurenix.callbacks import (
    CALLBACKS,
    Callback,
    CSVLogger,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
    Tracker,
)
from neurenix.errors import (
    ConfigurationError,
    DamagedFileError,
    MissingPackageError,
    NeurenixWarning,
    TrackerFailedWarning,
    UnknownNameError,
)


class FakeRun:
    """A run of three steps of eight samples per epoch whose weights are the number of the epoch."""

    def __init__(self, epochs: int = 5, *, is_main_process: bool = True) -> None:
        self.epoch, self.epochs, self.steps, self.steps_per_epoch, self.batch_size = 0, epochs, 0, 3, 8
        self.is_main_process = is_main_process
        self.learning_rates = {"body": 1e-4, "head": 1e-3}
        self.phase = "all layers"
        self.weights = -1
        self.saved: list[tuple[str, int]] = []
        self.stop_reason: str | None = None

    def stop(self, reason: str) -> None:
        self.stop_reason = reason

    def save(self, path: Path) -> None:
        self.saved.append((str(path), self.weights))

    def snapshot(self) -> dict[str, Any]:
        return {"weights": self.weights}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        self.weights = snapshot["weights"]

    def train_epoch(self, callback: Callback, epoch: int, logs: Mapping[str, Any]) -> None:
        """The hooks of one epoch, in the loop's order and with the loop's arguments."""
        self.epoch, self.weights = epoch, epoch
        callback.on_epoch_begin(epoch, {})
        for batch in range(self.steps_per_epoch):
            callback.on_train_batch_begin(batch, {})
            self.steps += 1
            callback.on_train_batch_end(batch, {"samples": (batch + 1) * self.batch_size})
        callback.on_test_begin({})
        callback.on_test_end({"loss": 0.5, "confusion_matrix": [[1, 0], [0, 1]]})
        callback.on_epoch_end(epoch, logs)

    def fit(self, callback: Callback, epochs: list[dict[str, Any]]) -> int:
        """Train on these logs, one per epoch, until the callback stops it; returns the number of epochs."""
        callback.attach(self)
        callback.on_train_begin({})
        for epoch, logs in enumerate(epochs):
            self.train_epoch(callback, epoch, logs)
            if self.stop_reason:
                break
        callback.on_train_end(epochs[-1])
        return self.epoch + 1


def losses(*values: float) -> list[dict[str, Any]]:
    return [{"loss": 9.0, "val_loss": value, "seconds": 1.5} for value in values]


FULL_LOGS = [
    {"loss": 1.0 / (k + 1), "confusion_matrix": [[3, 1], [0, 4]], "val_loss": 2.0 / (k + 1), "seconds": 0.5}
    for k in range(3)
]


class SilentTracker:
    """What a tracker has to have."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))


def make(name: str, folder: Path) -> Callback:
    wanted = {"filepath": folder / "out", "file": io.StringIO(), "tracker": SilentTracker()}
    kind = CALLBACKS[name]
    return kind(**{key: wanted[key] for key in inspect.signature(kind).parameters if key in wanted})


@pytest.mark.parametrize("name", CALLBACKS)
class TestEveryCallback:
    def test_is_exported_under_its_name(self, name: str) -> None:
        import neurenix

        assert getattr(neurenix.callbacks, name) is CALLBACKS[name]
        assert CALLBACKS[name].__doc__

    def test_accepts_every_hook_and_fits_twice(self, name: str, tmp_path: Path) -> None:
        callback = make(name, tmp_path)
        assert FakeRun(3).fit(callback, FULL_LOGS) == 3
        assert FakeRun(3).fit(callback, FULL_LOGS) == 3

    def test_is_silent_beside_the_main_process(
        self, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        run = FakeRun(3, is_main_process=False)
        files = {"filepath": tmp_path / "out", "tracker": SilentTracker()}
        callback = CALLBACKS[name](**{key: files[key] for key in _parameters(name) & files.keys()})
        run.fit(callback, FULL_LOGS)
        assert capfd.readouterr() == ("", "")
        assert not run.saved and not list(tmp_path.iterdir())

    def test_resumes_exactly(self, name: str, tmp_path: Path) -> None:
        """Its state after two epochs, through JSON into a fresh one, and the third: as uninterrupted."""
        whole, first, second = (make(name, tmp_path / part) for part in ("whole", "cut", "cut"))
        for callback, epochs in ((whole, (0, 1, 2)), (first, (0, 1))):
            run = FakeRun(3)
            callback.attach(run)
            callback.on_train_begin({})
            for epoch in epochs:
                run.train_epoch(callback, epoch, FULL_LOGS[epoch])
        run = FakeRun(3)
        second.attach(run)
        second.on_train_begin({})
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        run.train_epoch(second, 2, FULL_LOGS[2])
        assert _without_folder(second.state_dict(), "cut") == _without_folder(whole.state_dict(), "whole")

    def test_a_new_fit_starts_anew(self, name: str, tmp_path: Path) -> None:
        callback = make(name, tmp_path)
        fresh = callback.state_dict()
        FakeRun(3).fit(callback, FULL_LOGS)
        callback.on_train_begin({})
        assert callback.state_dict() == fresh

    def test_works_after_an_error_before_the_first_epoch(self, name: str, tmp_path: Path) -> None:
        callback = make(name, tmp_path)
        callback.attach(FakeRun())
        callback.on_train_begin({})
        callback.on_train_end({})


def _parameters(name: str) -> set[str]:
    return set(inspect.signature(CALLBACKS[name]).parameters)


def _without_folder(state: dict[str, Any], part: str) -> str:
    return json.dumps(state, sort_keys=True).replace(f"/{part}/", "/")


# --- early stopping --------------------------------------------------------------------------------

NAN = math.nan

# (what it shows, arguments, val_loss per epoch, epochs that Keras' EarlyStopping trains)
STOPPING = [
    ("improves always", {"patience": 1}, [5, 4, 3, 2], 4),
    ("patience 0 stops at the first epoch without improvement", {"patience": 0}, [5, 4, 4, 3], 3),
    ("patience 1", {"patience": 1}, [5, 6, 4], 2),
    ("patience 2", {"patience": 2}, [5, 6, 7, 4], 3),
    ("an improvement resets the count", {"patience": 2}, [5, 6, 4, 6, 3, 6, 6, 6], 7),
    ("equal is no improvement", {"patience": 2}, [5, 5, 5, 5], 3),
    ("min_delta must be exceeded", {"patience": 1, "min_delta": 1.0}, [5, 4, 3], 2),
    ("min_delta exceeded", {"patience": 1, "min_delta": 0.5}, [5, 4, 3], 3),
    (
        "small steps below min_delta never add up to the best",
        {"patience": 3, "min_delta": 1},
        [5, 4.5, 4.1, 3.9],
        4,
    ),
    ("mode max", {"patience": 1, "mode": "max"}, [1, 2, 3, 2, 9], 4),
    ("baseline never reached", {"patience": 3, "baseline": 1.0}, [5, 4, 3, 3, 2], 4),
    ("baseline reached", {"patience": 2, "baseline": 3.5}, [5, 3, 4, 5, 6], 4),
    (
        "an improvement never stops, even short of the baseline",
        {"patience": 1, "baseline": 1},
        [5, 4, 3, 3],
        4,
    ),
]


@pytest.mark.parametrize(
    ("arguments", "values", "trained"), [row[1:] for row in STOPPING], ids=[r[0] for r in STOPPING]
)
def test_stops_where_keras_does(arguments: dict[str, Any], values: list[float], trained: int) -> None:
    run = FakeRun(len(values))
    callback = EarlyStopping(**arguments)
    assert run.fit(callback, losses(*values)) == trained
    assert (run.stop_reason is not None) == (callback.stopped_epoch is not None)
    if trained < len(values):
        assert callback.stopped_epoch == trained - 1


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
def test_what_is_not_finite_never_is_the_best(mode: Any, bad: float) -> None:
    run, callback = FakeRun(), EarlyStopping(patience=2, mode=mode)
    with pytest.warns(NeurenixWarning, match=f"val_loss is {bad} in epoch .; that counts as no improvement"):
        assert run.fit(callback, losses(5, bad, bad, 5)) == 3
    assert callback.best == 5


def test_nothing_finite_stops_with_a_reason() -> None:
    run = FakeRun()
    with pytest.warns(NeurenixWarning):
        assert run.fit(EarlyStopping(patience=1), losses(NAN, NAN, NAN)) == 2
    assert run.stop_reason == "val_loss had no finite value in 2 epochs"


def test_says_why_it_stopped() -> None:
    run = FakeRun()
    run.fit(EarlyStopping(patience=2), losses(5, 4, 4.5, 4.25))
    assert run.stop_reason == "val_loss has not improved on 4 (epoch 2) for 2 epochs"


@pytest.mark.parametrize(("restores", "weights"), [(True, 1), (False, 3)])
@pytest.mark.parametrize("epochs", [4, 9])
def test_restores_the_best_weights(restores: bool, weights: int, epochs: int) -> None:
    """Also when the fit ran to its end, where Keras before version 3 left the last ones."""
    run = FakeRun(epochs)
    run.fit(EarlyStopping(patience=2 if epochs == 9 else 8, restore_best_weights=restores), losses(5, 3, 4, 4))
    assert run.weights == weights


def test_holds_no_weights_unless_asked_and_none_after_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    run, keeps = FakeRun(), EarlyStopping(restore_best_weights=True)
    run.fit(keeps, losses(5, 4))
    assert keeps._best_weights is None
    monkeypatch.setattr(run, "snapshot", lambda: pytest.fail("a snapshot was taken"))
    run.fit(EarlyStopping(), losses(5, 4))


def test_best_weights_from_before_a_resume_are_kept() -> None:
    run, before, resumed = FakeRun(), EarlyStopping(restore_best_weights=True), EarlyStopping(restore_best_weights=True)
    before.attach(run)
    before.on_train_begin({})
    run.train_epoch(before, 2, losses(1)[0])
    state = before.state_dict()
    resumed.attach(run)
    resumed.on_train_begin({})
    resumed.load_state_dict(state)
    run.train_epoch(resumed, 4, losses(3)[0])
    resumed.on_train_end({})
    assert run.weights == 2


@pytest.mark.parametrize(
    ("monitor", "values", "best"),
    [("val_loss", [3, 2], 2), ("loss", [3, 2], 2), ("seconds", [3, 2], 2), ("val_accuracy", [0.3, 0.2], 0.3)]
    + [("val_mse", [3, 2], 2), ("r2", [0.3, 0.2], 0.3), ("val_log_loss", [3, 2], 2), ("val_ece", [3, 2], 2)]
    + [("val_f1", [0.3, 0.2], 0.3), ("val_top3_accuracy", [0.3, 0.2], 0.3), ("hamming", [0.3, 0.2], 0.2)],
)
def test_auto_mode_knows_which_way_is_better(monitor: str, values: list[float], best: float) -> None:
    callback = EarlyStopping(monitor=monitor)
    FakeRun().fit(callback, [{monitor: value} for value in values])
    assert callback.best == best


@pytest.mark.parametrize("kind", [EarlyStopping, lambda monitor: ModelCheckpoint("x", monitor, save_best_only=True)])
def test_monitors_that_cannot_work(kind: Any) -> None:
    logs = [{"loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5, "val_matrix": [[1]], "val_mine": 1.0}]
    with pytest.raises(UnknownNameError, match="no logged quantity 'val_acuracy'; closest: val_accuracy"):
        FakeRun().fit(kind(monitor="val_acuracy"), logs)
    with pytest.raises(UnknownNameError, match=r"known: loss\. Give fit\(\) a validation dataset"):
        FakeRun().fit(kind(monitor="val_f1_score"), [{"loss": 1.0}])
    with pytest.raises(ConfigurationError, match="is a list; only a number"):
        FakeRun().fit(kind(monitor="val_matrix"), logs)
    with pytest.raises(ConfigurationError, match="cannot tell whether 'val_mine' should rise or fall"):
        FakeRun().fit(kind(monitor="val_mine"), logs)


def test_wrong_arguments(tmp_path: Path) -> None:
    for arguments in ({"mode": "down"}, {"patience": -1}, {"min_delta": -0.1}, {"min_delta": NAN}):
        with pytest.raises(ConfigurationError, match=next(iter(arguments))):
            EarlyStopping(**arguments)  # type: ignore[arg-type]
    for arguments in ({"mode": "down"}, {"save_every": 0}):
        with pytest.raises(ConfigurationError, match=next(iter(arguments))):
            ModelCheckpoint(tmp_path, **arguments)  # type: ignore[arg-type]


# --- model checkpoint ------------------------------------------------------------------------------


def test_saves_every_epoch_without_looking_at_the_monitor() -> None:
    run = FakeRun()
    run.fit(ModelCheckpoint("runs/here"), [{"loss": 1.0}] * 3)
    assert run.saved == [("runs/here", 0), ("runs/here", 1), ("runs/here", 2)]


def test_saves_only_the_best() -> None:
    run, callback = FakeRun(), ModelCheckpoint("best", save_best_only=True)
    with pytest.warns(NeurenixWarning, match="val_loss is nan in epoch 4"):
        run.fit(callback, losses(5, 6, 4, NAN, 4, 3))
    assert run.saved == [("best", 0), ("best", 2), ("best", 5)]
    assert callback.best == 3


def test_a_resumed_run_does_not_replace_a_better_model() -> None:
    run, callback = FakeRun(), ModelCheckpoint("best", save_best_only=True)
    callback.attach(run)
    callback.on_train_begin({})
    callback.load_state_dict({"best": 2.0, "last_saved": "best"})
    run.train_epoch(callback, 3, losses(2.5)[0])
    assert run.saved == []


def test_saves_every_second_epoch() -> None:
    run = FakeRun()
    run.fit(ModelCheckpoint("runs/{epoch:02d}", save_every=2), losses(5, 4, 3, 2, 1))
    assert run.saved == [("runs/02", 1), ("runs/04", 3)]


def test_names_folders_by_what_is_logged() -> None:
    run, callback = FakeRun(), ModelCheckpoint(Path("runs") / "{epoch}-{val_loss:.2f}-{{x}}")
    run.fit(callback, losses(0.5, 0.25))
    assert [path for path, _ in run.saved] == ["runs/1-0.50-{x}", "runs/2-0.25-{x}"]
    assert callback.last_saved == "runs/2-0.25-{x}"


@pytest.mark.parametrize("template", ["{", "{}", "{0}", "{epoch.real}", "{val_loss[0]}", "a}"])
def test_templates_that_cannot_work(template: str) -> None:
    with pytest.raises(ConfigurationError, match="filepath"):
        ModelCheckpoint(template)


def test_templates_that_do_not_fit_the_logs() -> None:
    with pytest.raises(UnknownNameError, match="'val_los'; closest: val_loss"):
        FakeRun().fit(ModelCheckpoint("{val_los}"), losses(1))
    with pytest.raises(ConfigurationError, match="cannot be filled in"):
        FakeRun().fit(ModelCheckpoint("{val_loss:02d}"), losses(1.5))


# --- logs and rates --------------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_csv_holds_what_was_logged(tmp_path: Path) -> None:
    FakeRun(3).fit(CSVLogger(tmp_path / "deep" / "log.csv"), FULL_LOGS)
    rows = rows_of(tmp_path / "deep" / "log.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [float(row["val_loss"]) for row in rows] == [2.0, 1.0, 2.0 / 3]
    assert rows[0]["lr_head"] == "0.001" and rows[0]["phase"] == "all layers"
    assert json.loads(rows[0]["confusion_matrix"]) == [[3, 1], [0, 4]]
    assert list(rows[0])[:2] == ["epoch", "phase"]


def test_csv_shows_nan_as_nan(tmp_path: Path) -> None:
    FakeRun().fit(CSVLogger(tmp_path / "log.csv"), losses(NAN))
    assert rows_of(tmp_path / "log.csv")[0]["val_loss"] == "nan"


def test_csv_grows_columns(tmp_path: Path) -> None:
    run, logger = FakeRun(), CSVLogger(tmp_path / "log.csv")
    logger.attach(run)
    logger.on_train_begin({})
    for epoch, rates in enumerate([{"head": 1e-3}, {"head": 1e-3, "layer4": 1e-4}]):
        run.learning_rates = rates
        run.train_epoch(logger, epoch, {"loss": 1.0})
    assert [row["lr_layer4"] for row in rows_of(tmp_path / "log.csv")] == ["", "0.0001"]


@pytest.mark.parametrize(("append", "epochs"), [(False, ["1"]), (True, ["1", "2", "1"])])
def test_csv_appends_when_asked(append: bool, epochs: list[str], tmp_path: Path) -> None:
    FakeRun().fit(CSVLogger(tmp_path / "log.csv"), losses(2, 1))
    FakeRun().fit(CSVLogger(tmp_path / "log.csv", append=append), losses(3))
    assert [row["epoch"] for row in rows_of(tmp_path / "log.csv")] == epochs


def test_csv_of_a_resumed_run_repeats_no_row(tmp_path: Path) -> None:
    """The run was killed in epoch 3, after the file had got its row but before a checkpoint was written."""
    path = tmp_path / "log.csv"
    run, killed, resumed = FakeRun(), CSVLogger(path), CSVLogger(path)
    killed.attach(run)
    killed.on_train_begin({})
    for epoch in range(3):
        if epoch == 2:
            checkpoint = killed.state_dict()
        run.train_epoch(killed, epoch, losses(epoch)[0])
    resumed.attach(run)
    resumed.on_train_begin({})
    resumed.load_state_dict(checkpoint)
    run.train_epoch(resumed, 2, losses(2)[0])
    assert [row["epoch"] for row in rows_of(path)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "content", ["epoch,loss\n1,2,3\n", "epoch,loss\n1\n", "\ud800".encode("utf-16-le", "surrogatepass")]
)
def test_csv_does_not_append_to_something_else(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    logger = CSVLogger(path, append=True)
    with pytest.raises(DamagedFileError, match="log.csv"):
        logger.on_train_begin({})


def test_rates_are_those_of_each_epoch() -> None:
    run, monitor = FakeRun(), LearningRateMonitor()
    monitor.attach(run)
    monitor.on_train_begin({})
    for epoch, rate in enumerate([0.1, 0.01]):
        run.learning_rates = {"head": rate}
        run.train_epoch(monitor, epoch, {})
    assert monitor.rates == [{"head": 0.1}, {"head": 0.01}]


# --- progress --------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_one_plain_line_per_epoch_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("neurenix.callbacks.progress_bar.time.perf_counter", lambda: float(next(clock)))
    file = io.StringIO()
    FakeRun(2).fit(ProgressBar(file), losses(0.5, 0.25))
    # Each look at the clock takes 2 s: the third batch ends 6 s after its epoch began, at 24 samples.
    assert file.getvalue().splitlines() == [
        "epoch 1/2  loss 9.0000  val_loss 0.5000  4.0 samples/s  10s left",
        "epoch 2/2  loss 9.0000  val_loss 0.2500  4.0 samples/s",
    ]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    file = Terminal()
    FakeRun(2).fit(ProgressBar(file), losses(0.5, 0.25))
    shown = file.getvalue()
    assert "3/3" in shown and "samples/s" in shown and "━" in shown
    assert shown.count("epoch 2/2  loss") == 1
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is hidden"


def test_the_bar_is_gone_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    file, run = Terminal(), FakeRun()
    bar = ProgressBar(file)
    bar.attach(run)
    bar.on_train_begin({})
    bar.on_epoch_begin(0, {})
    bar.on_train_end({})
    assert file.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in file.getvalue().rpartition("\x1b[?25l")[2]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (87, "1m 27s"), (3599.7, "1h 00m"), (7322, "2h 02m"), (59.9, "1m 00s")]
)
def test_durations(seconds: float, text: str) -> None:
    from neurenix.callbacks.progress_bar import _duration

    assert _duration(seconds) == text


def test_the_monitor_warns_once_per_epoch() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        FakeRun().fit(EarlyStopping(patience=9), losses(1, NAN, NAN))
    assert len(caught) == 2


def test_a_tracker_gets_every_number_and_rate() -> None:
    tracker = SilentTracker()
    FakeRun(2).fit(Tracker(tracker), FULL_LOGS[:2])
    assert [step for step, _ in tracker.logged] == [1, 2]
    assert tracker.logged[0][1]["val_loss"] == 2.0 and "confusion_matrix" not in tracker.logged[0][1]
    assert any(name.startswith("lr_") for name in tracker.logged[0][1])


@pytest.mark.parametrize(
    ("tracker", "error", "message"),
    [
        ("tensorbord", UnknownNameError, "closest: tensorboard"),
        ("clearml", MissingPackageError, "pip install clearml"),
        (3, ConfigurationError, r"no log\(values, step\)"),
    ],
)
def test_trackers_that_cannot_work(tracker: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Tracker(tracker)


def test_tensorboard_holds_every_epoch(tmp_path: Path) -> None:
    """The real one, through accelerate; read back with its own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    FakeRun(2).fit(Tracker("tensorboard", folder=tmp_path), losses(0.5, 0.25))
    events = EventAccumulator(str(tmp_path / "neurenix")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("val_loss")] == [(1, 0.5), (2, 0.25)]
    assert [event.value for event in events.Scalars("lr_head")] == pytest.approx([1e-3, 1e-3])


def test_a_tracker_that_is_away_ends_no_fit_and_gets_what_it_missed() -> None:
    class Flaky(SilentTracker):
        def log(self, values: dict[str, float], step: int) -> None:
            if step == 2 and not self.failed:
                self.failed = True
                raise ConnectionError("no route")
            super().log(values, step)

        failed = False

    tracker = Flaky()
    with pytest.warns(TrackerFailedWarning, match="no route.*history has them"):
        FakeRun(3).fit(Tracker(tracker), losses(3, 2, 1))
    assert [(step, values["val_loss"]) for step, values in tracker.logged] == [(1, 3), (2, 2), (3, 1)]
