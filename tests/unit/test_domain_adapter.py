"""DomainAdapter: batches of two domains, batch norms, runs that are killed, the frozen prefix, wrong uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn

from neurenix.callbacks import Callback
from neurenix.data import DataLoader
from neurenix.data.sampling import grouped_batches
from neurenix.errors import ConfigurationError, LabelMismatchError, UnknownNameError
from neurenix.storage import tensor_digest
from neurenix.transfer import DomainAdapter, Finetuner, LoraTuner, list_adaptation_methods
from neurenix.transfer.adaptation import NORMS, methods
from neurenix.transfer.adaptation._data import hold_out
from neurenix.transfer.adaptation._paired import PairedDomains
from neurenix.transfer.adaptation.gradual import GradualSelfTraining

CLASSES = 3
# few epochs on few samples: what the verdict says of such models is not asked here
pytestmark = pytest.mark.filterwarnings("ignore::neurenix.errors.NegativeTransferWarning")


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU()),
            nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1)),
            nn.Linear(16, CLASSES),
        )


def domain(seed: int, count: int = 60, shift: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three clouds in four dimensions; shift: of all of them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    points = 0.3 * torch.randn(count, 4, generator=generator)
    points[torch.arange(count), labels] += 1.5
    return points + shift, labels


SOURCE, TARGET = domain(1), domain(2, 44, shift=0.8)


def adapter(**settings: Any) -> DomainAdapter:
    given: dict[str, Any] = {"num_classes": CLASSES, "head_hidden_sizes": (8,), "learning_rate": 5e-3, **settings}
    return DomainAdapter(network(), **given)


def digests(adapted: DomainAdapter) -> dict[str, str]:
    return {name: tensor_digest(tensor) for name, tensor in adapted.model.state_dict().items()}


def numbers(adapted: DomainAdapter) -> list[dict[str, Any]]:
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in adapted.history.epochs]


# --- batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [(20, 7), (7, 20), (12, 12), (3, 40), (5,), (9, 4, 17)])
def test_batches_hold_every_group_and_the_largest_once(groups: tuple[int, ...]) -> None:
    batches = grouped_batches(groups, 4, seed=3, epoch=1)
    starts = numpy.cumsum([0, *groups])
    for place, size in enumerate(groups):
        inside = [((batch >= starts[place]) & (batch < starts[place + 1])).sum().item() for batch in batches]
        seen = torch.cat([batch[(batch >= starts[place]) & (batch < starts[place + 1])] for batch in batches])
        assert set(seen.tolist()) == set(range(starts[place], starts[place + 1]))
        if size == max(groups):
            assert len(seen) == size
        else:
            assert all(count == min(4, size) for count in inside[:-1])
    assert len(batches) == -(-max(groups) // 4)
    assert all(len(set(batch.tolist())) == len(batch) for batch in batches if min(groups) >= 8)


def test_half_a_batch_holds_both_domains() -> None:
    batch = grouped_batches((30, 30), 8, seed=0, epoch=0)[0]
    for half in batch.split(8):
        assert (half < 30).sum() == 4


def test_groups_are_parts_of_the_dataset() -> None:
    with pytest.raises(ConfigurationError, match="add up to 5"):
        DataLoader((torch.zeros(6, 2), torch.zeros(6)), 2, groups=(2, 3))


def test_labels_of_the_target_are_not_given() -> None:
    both = PairedDomains(
        torch.utils.data.TensorDataset(*SOURCE), torch.utils.data.TensorDataset(*TARGET), columns=1, told=False
    )
    assert both.targets is not None and both.targets[0].tolist() == [0.0, 0.0]
    assert numpy.isnan(both.targets[60:, 1]).all()
    assert both[60][1][0] == 1.0 and both[60][1][1].isnan()
    assert len(both) == 104 and both.sample_name(61) == "sample 1"


# --- what it does --------------------------------------------------------------------------------------------------


def test_target_labels_change_nothing() -> None:
    """A fit that was given the target's labels ends with the bits of one that was not."""
    one, other = adapter(), adapter()
    one.fit(SOURCE, TARGET, epochs=2, run=False)
    other.fit(SOURCE, TARGET[0], epochs=2, run=False)
    assert digests(one) == digests(other)


def test_what_was_loaded_stays(tmp_path: Path) -> None:
    module = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    DomainAdapter(module, CLASSES).fit(SOURCE, TARGET[0], epochs=1, run=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_history_tells_of_both_stages() -> None:
    adapted = adapter()
    history = adapted.fit(SOURCE, TARGET[0], epochs=2, source_epochs=3, run=False)
    assert [record["epoch"] for record in history.epochs] == [0, 1, 2, 3, 4]
    adapted.fit(SOURCE, TARGET[0], epochs=1, run=False)  # a fitted model is not fitted on the source again
    assert len(history.epochs) == 6


def test_saved_model_is_the_tuners(tmp_path: Path) -> None:
    adapted = adapter()
    adapted.fit(SOURCE, TARGET[0], epochs=2, run=False)
    adapted.save(tmp_path / "adapted")
    again = Finetuner.load(tmp_path / "adapted", model=network())
    assert numpy.array_equal(again.predict_proba(TARGET[0]), adapted.predict_proba(TARGET[0]))
    names = again.model.state_dict()
    assert not [name for name in names if "term" in name or "discriminator" in name]


class Cut(Exception):
    """A killed process, as far as files are concerned."""


class CutAfter(Callback):
    def __init__(self, steps: int) -> None:
        self._left = steps

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self._left -= 1
        if not self._left:
            raise Cut


@pytest.mark.parametrize("norms", list(NORMS))
def test_killed_runs_end_with_the_same_bits(norms: str, tmp_path: Path) -> None:
    def fit(run: Path, *callbacks: Callback) -> DomainAdapter:
        adapted = adapter(norms=norms)
        adapted.fit(SOURCE, TARGET[0], batch_size=16, epochs=3, callbacks=callbacks, run=run, checkpoint_every=1)
        return adapted

    whole = fit(tmp_path / "whole")
    for steps in (2, 5):
        with pytest.raises(Cut):
            fit(tmp_path / "cut", CutAfter(steps))
    again = fit(tmp_path / "cut")
    assert digests(again) == digests(whole)
    assert numbers(again) == numbers(whole)
    assert digests(fit(tmp_path / "cut")) == digests(whole)  # a finished run is taken as it ended


@pytest.mark.parametrize("norms", ["joint", "separate", "target"])
def test_frozen_prefix_changes_nothing(norms: str) -> None:
    """Same losses and weights with frozen layers run once and in every step."""
    fits = {}
    for use in ("always", "never"):
        adapted = adapter(norms=norms, freeze_layers=["0"], frozen_prefix=use, seed=5)
        adapted.fit(SOURCE, TARGET[0], batch_size=16, epochs=3, run=False)
        fits[use] = adapted
    for one, other in zip(numbers(fits["always"]), numbers(fits["never"]), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
    for name, tensor in fits["always"].model.state_dict().items():
        torch.testing.assert_close(tensor, fits["never"].model.state_dict()[name], atol=1e-4, rtol=1e-4)


def statistics(adapted: DomainAdapter) -> torch.Tensor:
    return next(module for module in adapted.model.modules() if isinstance(module, nn.BatchNorm1d)).running_mean


def test_batch_norms_keep_what_the_policy_says() -> None:
    """The first norm's running mean is that of the samples that the policy names: they lie on either side of it."""
    means = {}
    for norms in ("source", "target", "joint", "per_domain"):
        adapted = adapter(norms=norms, learning_rate=1e-12, chooses=False)
        adapted.fit(SOURCE, TARGET[0], batch_size=44, epochs=40, source_epochs=1, run=False)
        with torch.no_grad():
            first = adapted.model.trunk.module[0][0]
            own = {"source": first(SOURCE[0]).mean(0), "target": first(TARGET[0]).mean(0)}
        means[norms] = statistics(adapted)
    torch.testing.assert_close(means["source"], own["source"], atol=0.1, rtol=0.1)
    torch.testing.assert_close(means["target"], own["target"], atol=0.05, rtol=0.05)
    torch.testing.assert_close(means["per_domain"], own["target"], atol=0.05, rtol=0.05)
    torch.testing.assert_close(means["joint"], (own["source"] + own["target"]) / 2, atol=0.1, rtol=0.1)


def test_any_tuner_can_be_adapted() -> None:
    tuner = LoraTuner(network(), num_classes=CLASSES, target_layers=["1.0"], rank=2, learning_rate=0.01)
    adapted = DomainAdapter(tuner)
    adapted.fit(SOURCE, TARGET[0], epochs=4, run=False)
    moved = {
        name
        for name, tensor in adapted.model.state_dict().items()
        if name in tuner.model.state_dict() and not torch.equal(tensor, tuner.model.state_dict()[name])
    }
    assert moved and all("lora" in name or name.startswith("head") for name in moved)
    assert not tuner.history  # a copy was adapted


# --- wrong uses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"method": "D-A N_N"}, None, ""),
        ({"method": "dnan"}, UnknownNameError, "dann"),
        ({"method": 3}, ConfigurationError, "give a name"),
        ({"norms": "both"}, UnknownNameError, "joint"),
        ({"mixup": 1}, TypeError, "mixup"),
        ({"method": {"kind": "dann", "weight": 2.0}}, None, ""),
        ({"loss": "mse", "num_classes": 1, "method": methods.DANN()}, None, ""),
    ],
)
def test_choices_are_checked(settings: dict[str, Any], error: type[Exception] | None, words: str) -> None:
    if error is None:
        adapter(**settings)
        return
    with pytest.raises(error, match=words):
        adapter(**settings)


def test_settings_of_a_tuner_belong_to_it() -> None:
    with pytest.raises(ConfigurationError, match="learning_rate"):
        DomainAdapter(Finetuner(network(), CLASSES), learning_rate=0.1)


def test_source_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="labelled samples of the source"):
        adapter().fit(None, TARGET[0], epochs=1, run=False)


def test_frozen_features_cannot_be_aligned() -> None:
    with pytest.raises(ConfigurationError, match="head_hidden_sizes"):
        adapter(strategy="head", head_hidden_sizes=()).fit(SOURCE, TARGET[0], epochs=1, run=False)


def test_labels_that_the_head_has_no_output_for() -> None:
    with pytest.raises(LabelMismatchError):
        adapter(num_classes=2).fit(SOURCE, TARGET[0], epochs=1, run=False)


def test_methods_are_listed() -> None:
    assert "dann" in list_adaptation_methods("adversarial")
    with pytest.raises(ConfigurationError, match="adversarial"):
        list_adaptation_methods("magic")


# --- choice --------------------------------------------------------------------------------------------------------


def test_epochs_are_judged_without_target_labels() -> None:
    adapted = adapter()
    adapted.fit(SOURCE, TARGET[0], epochs=2, source_epochs=1, run=False)
    record = adapted.history.epochs[-1]
    assert {"val_loss", "val_source_accuracy", "val_im", "val_snd", "val_dev"} <= set(record)
    assert not [name for name in record if "target" in name]
    assert adapted.report is not None and adapted.report.chosen_epoch in (-1, 0, 1) and adapted.report.gap is None


def test_gap_is_told_where_labels_are_known() -> None:
    adapted = adapter()
    adapted.fit(SOURCE, TARGET, epochs=3, source_epochs=1, run=False)
    assert adapted.report is not None and adapted.report.gap is not None
    epochs = adapted.history.epochs[1:]
    chosen = adapted.report.gap.chosen_epoch
    if chosen >= 0:
        assert adapted.report.gap.chosen == epochs[chosen]["val_target_accuracy"]
    assert adapted.report.gap.oracle >= max(epoch["val_target_accuracy"] for epoch in epochs)
    assert adapted.evaluate(TARGET)["accuracy"] == pytest.approx(adapted.report.gap.chosen)


def test_loss_of_the_judged_epoch_is_the_sources() -> None:
    """val_loss is the mean loss of the held-out source samples, as evaluate gives it for them."""
    adapted = adapter(chooses=False, dropout_rate=0.0)
    adapted.fit(SOURCE, TARGET[0][:30], epochs=1, source_epochs=1, batch_size=7, run=False)
    _, held = hold_out(SOURCE, seed=0)
    told = adapted.evaluate(held)
    assert adapted.history.epochs[-1]["val_loss"] == pytest.approx(told["loss"], rel=1e-5)
    assert adapted.history.epochs[-1]["val_source_accuracy"] == pytest.approx(told["accuracy"])


def test_strange_classes_of_the_target_are_left_out_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    frame_source = [(SOURCE[0][place], "abc"[SOURCE[1][place]]) for place in range(60)]
    frame_target = [(TARGET[0][place], "abz"[TARGET[1][place]]) for place in range(44)]
    adapted = adapter()
    adapted.fit(frame_source, frame_target, epochs=1, run=False)
    assert "left out of the report" in capsys.readouterr().out
    assert adapted.report is not None and adapted.report.gap is None


# --- methods that are no term --------------------------------------------------------------------------------------


def test_batch_norms_alone_are_adapted() -> None:
    adapted = adapter(method="adabn", chooses=False)
    adapted.fit(SOURCE, TARGET, source_epochs=4, run=False)
    with torch.no_grad():
        first = adapted.model.trunk.module[0][0](TARGET[0])
    torch.testing.assert_close(statistics(adapted), first.mean(0), atol=1e-5, rtol=1e-5)
    assert adapted.report is not None and "target_accuracy" in adapted.report.scores


def test_gradual_goes_through_what_lies_between() -> None:
    between = [domain(seed, 60, shift)[0] for seed, shift in ((5, 0.3), (6, 0.6))]
    adapted = adapter(method=GradualSelfTraining(epochs=2))
    adapted.fit(SOURCE, TARGET[0], source_epochs=4, intermediate=between, run=False)
    assert len(adapted.history.epochs) >= 4 + 2
    with pytest.raises(ConfigurationError, match="intermediate"):
        adapter(method="gradual").fit(SOURCE, TARGET[0], epochs=1, run=False)


def test_the_worse_model_is_not_kept() -> None:
    """Statistics of samples that are all alike would ruin the model; the one from before stays."""
    adapted = adapter(method="adabn")
    alike = torch.full((60, 4), 3.0) + 0.001 * torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    adapted.fit(SOURCE, alike, TARGET, source_epochs=6, run=False)
    assert adapted.report is not None
    if adapted.report.chosen_epoch == -1:
        assert adapted.report.scores["target_accuracy"] == pytest.approx(adapted.evaluate(TARGET)["accuracy"])
    assert adapted.report.gap is not None


def test_the_model_from_before_comes_back_bit_for_bit(tmp_path: Path) -> None:
    adapted = adapter(chooses=False)
    with pytest.raises(ConfigurationError, match="nothing was adapted"):
        adapted.use_source_only()
    source_only = adapter(chooses=False).tuner
    trained, _ = hold_out(SOURCE, seed=0)
    source_only.fit(trained, epochs=3, run=False)
    adapted.fit(SOURCE, TARGET[0], epochs=2, source_epochs=3, run=False)
    assert digests(adapted) != {name: tensor_digest(part) for name, part in source_only.model.state_dict().items()}
    adapted.use_source_only()
    assert digests(adapted) == {name: tensor_digest(part) for name, part in source_only.model.state_dict().items()}


def test_a_run_that_goes_on_reports_the_same(tmp_path: Path) -> None:
    """Also of the model from before, which the process that goes on never trained."""

    def fit(run: Path, *callbacks: Callback) -> DomainAdapter:
        adapted = adapter()
        adapted.fit(SOURCE, TARGET, batch_size=16, epochs=3, callbacks=callbacks, run=run, checkpoint_every=1)
        return adapted

    whole = fit(tmp_path / "whole")
    with pytest.raises(Cut):
        fit(tmp_path / "cut", CutAfter(6))
    for again in (fit(tmp_path / "cut"), fit(tmp_path / "cut")):  # gone on with, and taken as it ended
        assert str(again.report) == str(whole.report)
        assert again.report is not None and whole.report is not None
        assert dict(again.report.source_only) == dict(whole.report.source_only)
