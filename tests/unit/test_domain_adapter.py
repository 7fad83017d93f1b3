"""DomainAdapter: batches of two domains, batch norms, runs that are killed, the frozen prefix, wrong uses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn

from neurenix.callbacks import Callback, EarlyStopping
from neurenix.data import ArrayDataset, DataLoader
from neurenix.data.sampling import grouped_batches
from neurenix.errors import (
    ConfigurationError,
    InputMismatchError,
    LabelMismatchError,
    ResumeError,
    SkippedSamplesWarning,
    UnknownNameError,
    UnreadableSampleError,
)
from neurenix.storage import tensor_digest
from neurenix.transfer import DomainAdapter, Finetuner, LoraTuner, heads, list_adaptation_methods
from neurenix.transfer.adaptation import NORMS, methods
from neurenix.transfer.adaptation._data import DomainData, DomainLoaders, Given, hold_out
from neurenix.transfer.adaptation._judge import BEFORE
from neurenix.transfer.adaptation._paired import Domain, PairedDomains
from neurenix.transfer.adaptation.gradual import GradualSelfTraining
from neurenix.transfer.adaptation.methods import shot
from neurenix.transfer.adaptation.methods.ada_bn import AdaBN

CLASSES, PROVE = 3, bool(os.environ.get("NEURENIX_PROVE"))
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


def without_norms() -> nn.Module:
    return nn.Sequential(nn.Sequential(nn.Linear(4, 16), nn.ReLU()), nn.Linear(16, CLASSES))


def adapter(**settings: Any) -> DomainAdapter:
    given: dict[str, Any] = {"num_classes": CLASSES, "head_hidden_sizes": (8,), "learning_rate": 5e-3, **settings}
    return DomainAdapter(network(), **given)


def data_of(adapted: DomainAdapter) -> DomainData:
    given = Given.of(SOURCE, TARGET[0], None, batch_size=8, num_workers=0, tuner=adapted.tuner)
    return DomainLoaders(adapted.tuner, given).data(learns_source=True)


def digests(adapted: DomainAdapter) -> dict[str, str]:
    return {name: tensor_digest(tensor) for name, tensor in adapted.model.state_dict().items()}


def numbers(adapted: DomainAdapter) -> list[dict[str, Any]]:
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in adapted.history.epochs]


# --- batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [(20, 7), (7, 20), (12, 12), (3, 40), (5,), (9, 4, 17)])
def test_batches_are_full_of_every_group(groups: tuple[int, ...]) -> None:
    """All of the largest group is seen, hardly twice; no batch has a domain of one sample at its end."""
    batches = grouped_batches(groups, 4, seed=3, epoch=1)
    assert len(batches) == -(-max(groups) // 4)
    starts = numpy.cumsum([0, *groups])
    for place, size in enumerate(groups):
        inside = [batch[(batch >= starts[place]) & (batch < starts[place + 1])] for batch in batches]
        assert all(len(part) == min(4, size) for part in inside)
        seen = torch.cat(inside)
        assert set(seen.tolist()) == set(range(starts[place], starts[place + 1]))
        assert torch.bincount(seen - starts[place]).max() - torch.bincount(seen - starts[place]).min() <= 1


def test_half_a_batch_holds_both_domains() -> None:
    batch = grouped_batches((30, 30), 8, seed=0, epoch=0)[0]
    for half in batch.split(8):
        assert (half < 30).sum() == 4


def test_groups_are_parts_of_the_dataset() -> None:
    with pytest.raises(ConfigurationError, match="add up to 5"):
        DataLoader((torch.zeros(6, 2), torch.zeros(6)), 2, groups=(2, 3))


def test_labels_of_the_target_are_not_given() -> None:
    both = PairedDomains(
        Domain(torch.utils.data.TensorDataset(*SOURCE), 0.0, told=True),
        Domain(torch.utils.data.TensorDataset(*TARGET), 1.0, told=False),
        columns=1,
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


def _with_average(settings: dict[str, Any]) -> DomainAdapter:
    """An adapter of a tuner, which has settings that the adapter itself does not take."""
    tuner = Finetuner(network(), CLASSES, head_hidden_sizes=(8,), learning_rate=5e-3, ema_decay=settings["ema_decay"])
    return DomainAdapter(tuner, method=settings["method"])


@pytest.mark.parametrize(
    "settings",
    [
        *({"norms": norms} for norms in (NORMS if PROVE else ("joint", "per_domain"))),
        {"freeze_layers": ["0"], "frozen_prefix": "always"},
        {"method": "shot", "accumulation_steps": 2},
        {"method": "mean_teacher", "ema_decay": 0.9},
    ],
    ids=str,
)
def test_killed_runs_end_with_the_same_bits(settings: dict[str, Any], tmp_path: Path) -> None:
    def fit(run: Path, *callbacks: Callback) -> DomainAdapter:
        adapted = _with_average(settings) if "ema_decay" in settings else adapter(**settings)
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
        adapted.fit(SOURCE, TARGET[0], batch_size=8, epochs=5, source_epochs=1, run=False)
        with torch.no_grad():
            first = adapted.model.trunk.module[0][0]
            own = {"source": first(SOURCE[0]).mean(0), "target": first(TARGET[0]).mean(0)}
        means[norms] = statistics(adapted)
    torch.testing.assert_close(means["source"], own["source"], atol=0.1, rtol=0.1)
    torch.testing.assert_close(means["target"], own["target"], atol=0.1, rtol=0.1)
    torch.testing.assert_close(means["per_domain"], own["target"], atol=0.1, rtol=0.1)
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
    assert {"val_loss", "val_source_accuracy", "val_prior_im", "val_snd", "val_entropy"} <= set(record)
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


class Ruin(Callback):
    """Forgets the classes in every step."""

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        with torch.no_grad():
            for parameter in self.run.model.head.parameters():  # type: ignore[attr-defined]
                parameter.zero_()


def test_the_worse_model_is_not_kept() -> None:
    adapted, source_only = adapter(), adapter().tuner
    source_only.fit(hold_out(SOURCE, seed=0)[0], epochs=8, run=False)
    adapted.fit(SOURCE, TARGET, epochs=2, source_epochs=8, callbacks=Ruin(), run=False)
    assert adapted.report is not None and adapted.report.chosen_epoch == -1
    assert "model from before it, which is kept" in str(adapted.report)
    assert digests(adapted) == {name: tensor_digest(part) for name, part in source_only.model.state_dict().items()}


# --- what else a fit may be given ----------------------------------------------------------------------------------


def test_loaders_bring_their_batches_and_their_way_of_making_them() -> None:
    asked: list[int] = []

    def collate(samples: list[Any]) -> tuple[Any, Any]:
        asked.append(len(samples))
        return torch.stack([raw for raw, _ in samples]), torch.stack([torch.as_tensor(label) for _, label in samples])

    pairs = torch.utils.data.TensorDataset(*SOURCE)
    source = torch.utils.data.DataLoader(pairs, batch_size=10, shuffle=True, collate_fn=collate)
    adapted = adapter()
    adapted.fit(source, torch.utils.data.DataLoader(TARGET[0], batch_size=10), epochs=1, source_epochs=1, run=False)
    assert 20 in asked  # ten of each domain
    other = adapter()
    other.fit(DataLoader(SOURCE, 10), DataLoader(TARGET[0], 10), epochs=1, source_epochs=1, run=False)
    assert digests(other) == digests(adapted)


@pytest.mark.parametrize(("loss", "width"), [("binary_cross_entropy", 3), ("mse", 2)])
def test_labels_and_values_are_adapted_too(loss: str, width: int) -> None:
    targets = torch.nn.functional.one_hot(SOURCE[1], CLASSES).float()[:, :width]
    adapted = adapter(loss=loss, num_classes=width, method="dann")
    adapted.fit((SOURCE[0], targets), TARGET[0], epochs=2, source_epochs=2, run=False)
    assert adapted.report is not None and adapted.report.verdict is None
    assert adapted.predict(TARGET[0]).shape == (44, width)


def test_samples_for_the_report_choose_nothing() -> None:
    """The same bits with them and without; the report is on them."""
    one, other = adapter(), adapter()
    few = (TARGET[0][:3] + 5, TARGET[1][:3])
    one.fit(SOURCE, TARGET[0], epochs=2, source_epochs=2, run=False)
    other.fit(SOURCE, TARGET[0], few, epochs=2, source_epochs=2, run=False)
    assert digests(one) == digests(other)
    assert other.report is not None
    assert other.report.scores["target_accuracy"] == pytest.approx(other.evaluate(few)["accuracy"])


def test_the_choice_has_the_last_word() -> None:
    adapted = adapter()
    stopping = EarlyStopping(monitor="val_loss", patience=1, restore_best_weights=True)
    adapted.fit(SOURCE, TARGET, epochs=6, source_epochs=1, callbacks=stopping, run=False)
    assert adapted.report is not None and adapted.report.gap is not None
    assert adapted.evaluate(TARGET)["accuracy"] == pytest.approx(adapted.report.gap.chosen)


def test_a_handful_of_target_samples_is_enough() -> None:
    adapted = adapter()
    adapted.fit(SOURCE, TARGET[0][:3], epochs=1, source_epochs=1, run=False)
    assert adapted.report is not None and "proxy" not in str(adapted.report)


def test_heads_of_ones_own_need_no_hidden_layer() -> None:
    adapted = DomainAdapter(network(), head=heads.Cosine(num_outputs=CLASSES), learning_rate=5e-3)
    adapted.fit(SOURCE, TARGET[0], epochs=1, source_epochs=1, run=False)
    with pytest.raises(ConfigurationError, match="losses of its own"):
        DomainAdapter(network(), head=heads.Gaussian())


def test_without_a_source_where_the_model_is_trained() -> None:
    tuner = Finetuner(network(), CLASSES, head_hidden_sizes=(8,), learning_rate=5e-3)
    tuner.fit(SOURCE, epochs=3, run=False)
    for method in ("shot", "adabn"):
        adapted = DomainAdapter(tuner, method=method)
        adapted.fit(None, TARGET[0], epochs=1, run=False)
        assert not all(
            torch.equal(part, tuner.model.state_dict()[name]) for name, part in adapted.model.state_dict().items()
        )


class Broken(torch.utils.data.Dataset[Any]):
    """The target with one sample that cannot be read."""

    on_bad = "skip"

    def __len__(self) -> int:
        return 44

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if index == 5:
            raise UnreadableSampleError("sample 5 is broken")
        return TARGET[0][index], None


def test_pseudo_labels_belong_to_their_samples_where_one_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    original = shot._Term.begin_epoch

    def begin_epoch(term: Any, epoch: int, look: Any) -> None:
        original(term, epoch, look)
        seen.append(term.pseudo_labels.clone())

    monkeypatch.setattr(shot._Term, "begin_epoch", begin_epoch)
    source = ArrayDataset(*SOURCE)
    adapted = adapter(method="shot")
    with pytest.warns(SkippedSamplesWarning):
        adapted.fit(source, Broken(), epochs=1, source_epochs=8, run=False)
    assert len(seen[0]) == 44 and seen[0][5] == shot.UNREAD
    assert (seen[0] == TARGET[1]).float().mean() > 0.9


@pytest.mark.parametrize(
    ("settings", "given", "words"),
    [
        ({"method": "dann"}, {"pool": TARGET[0]}, "gradual"),
        ({"method": "adabn"}, {"callbacks": EarlyStopping()}, "callbacks"),
        ({"method": "adabn", "norms": "per_domain"}, {}, "norms='per_domain' is for methods that train"),
        ({"method": "adabn", "model": without_norms}, {}, "sets the statistics of batch norms"),
        ({"method": "feature_coral", "head": "cosine"}, {}, "linear layer"),
        ({"method": "gradual"}, {}, "intermediate="),
        ({"method": "rotation"}, {}, "images"),
        ({"method": "fixmatch"}, {"target": (TARGET[0], TARGET[1]), "val_dataset": (TARGET[0], TARGET[1] + 9)}, "9|11"),
        ({"freeze_layers": ["0", "1"], "head_hidden_sizes": ()}, {}, "head_hidden_sizes"),
        ({"method": "dann"}, {"resume": True}, "name it with run"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    settings: dict[str, Any], given: dict[str, Any], words: str
) -> None:
    made = {"num_classes": CLASSES, "learning_rate": 5e-3, **settings}
    adapted = DomainAdapter(made.pop("model", network)(), **made)
    target = given.pop("target", TARGET[0])
    with pytest.raises((ConfigurationError, ResumeError, InputMismatchError, LabelMismatchError), match=words):
        adapted.fit(SOURCE, target, epochs=1, **{"run": False, **given} if "resume" not in given else given)
    assert not adapted.history.epochs


def test_a_rehearsal_leaves_nothing_behind() -> None:
    """Weights, statistics, modes, what learns, and the generators are as before it."""
    adapted = adapter(method="mean_teacher", norms="per_domain")
    data = data_of(adapted)
    before, state = digests(adapted), torch.random.get_rng_state()
    flags = [(p.requires_grad, m.training) for m in adapted.model.modules() for p in m.parameters()]
    adapted._term_fit(adapted.method, data, 1).rehearse()  # type: ignore[arg-type]
    assert digests(adapted) == before and torch.equal(torch.random.get_rng_state(), state)
    assert flags == [(p.requires_grad, m.training) for m in adapted.model.modules() for p in m.parameters()]


def test_a_rehearsal_that_memory_is_short_of_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, ask: Any, inputs: Any, source: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    adapted = adapter()
    data = data_of(adapted)
    monkeypatch.setattr(NORMS["separate"], "forward", full)
    adapted._term_fit(adapted.method, data, 1).rehearse()  # type: ignore[arg-type]


def test_a_report_without_a_source_is_not_promised() -> None:
    adapted = adapter(method="shot")
    adapted.tuner.fit(SOURCE, epochs=1, run=False)
    with pytest.raises(ConfigurationError, match="evaluate"):
        DomainAdapter(adapted.tuner, method="shot").fit(None, TARGET[0], TARGET, epochs=1, run=False)


class Cutting:
    """Makes batches of series of any length, of which it takes the first four numbers."""

    def stacked(self, samples: list[Any]) -> tuple[Any, Any]:
        return torch.stack([raw[:4] for raw, _ in samples]), torch.stack([torch.as_tensor(y) for _, y in samples])

    def listed(self, samples: list[Any]) -> tuple[Any, Any]:
        return torch.stack([raw[:4] for raw, _ in samples]), torch.tensor([int(label) for _, label in samples])


def longer(data: Any) -> list[Any]:
    pairs = enumerate(zip(*data, strict=True))
    return [(torch.cat([row, row[: index % 3]]), label) for index, (row, label) in pairs]


@pytest.mark.parametrize("way", ["stacked", "listed"])
def test_a_way_of_making_batches_holds_for_every_part_of_the_fit(way: str) -> None:
    """Samples that only the loaders' collate can read; both have one method of one object, which is not one object."""
    cutting = Cutting()

    def loader(data: Any) -> Any:
        return torch.utils.data.DataLoader(longer(data), 10, shuffle=True, collate_fn=getattr(cutting, way))

    adapted = adapter()
    adapted.fit(loader(SOURCE), loader(TARGET), epochs=1, source_epochs=1, run=False)
    plain = adapter()
    plain.fit(DataLoader(SOURCE, 10), TARGET, epochs=1, source_epochs=1, run=False)
    assert digests(adapted) == digests(plain)


def test_both_loaders_have_one_way_of_making_batches() -> None:
    cutting = Cutting()
    source = torch.utils.data.DataLoader(longer(SOURCE), 10, collate_fn=cutting.stacked)
    target = torch.utils.data.DataLoader(longer(TARGET), 10, collate_fn=cutting.listed)
    with pytest.raises(ConfigurationError, match="give both the same"):
        adapter().fit(source, target, epochs=1, run=False)


def test_a_loaders_drop_last_holds_for_the_source_alone() -> None:
    """101 samples less 20 that are held out leave one for the tenth batch of eight, which no batch norm can take."""
    source = torch.utils.data.TensorDataset(*domain(1, 101))
    with pytest.raises(InputMismatchError, match="drop_last=True"):
        adapter().fit(torch.utils.data.DataLoader(source, 8), TARGET[0], epochs=1, source_epochs=1, run=False)
    adapter().fit(
        torch.utils.data.DataLoader(source, 8, drop_last=True), TARGET[0], epochs=1, source_epochs=1, run=False
    )


def test_samples_for_the_report_may_lack_classes(capsys: pytest.CaptureFixture[str]) -> None:
    """Classes have names that the model only learns from the source."""
    source = [(row, "abc"[label]) for row, label in zip(*SOURCE, strict=True)]
    target = [(row, "ab"[label]) for row, label in zip(*TARGET, strict=True) if label < 2]
    adapted = adapter()
    adapted.fit(source, target, target, epochs=1, run=False)
    assert "left out" not in capsys.readouterr().out
    assert adapted.report is not None and adapted.report.gap is not None


@pytest.mark.parametrize("method", ["tent", "eta"])
def test_every_phase_of_freezing_is_rehearsed(method: str) -> None:
    adapted = adapter(method=method, strategy="progressive", head_hidden_sizes=())
    with pytest.raises(ConfigurationError, match="every layer is frozen"):
        adapted.fit(SOURCE, TARGET[0], epochs=3, run=False)
    assert not adapted.history.epochs


def test_norms_that_nothing_is_trained_of_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    adapted = adapter(norms="target", norm_statistics="pretrained")
    adapted.fit(SOURCE, TARGET[0], epochs=1, run=False)
    assert "norms='target' changes nothing here" in capsys.readouterr().out
    assert adapted.report is not None and "source_error" in adapted.report.scores


def test_going_back_where_nothing_was_changed() -> None:
    adapted = adapter()
    adapted.fit(SOURCE, TARGET[0], epochs=1, run=False)
    adapted._source_only = {}  # as where the model from before was kept
    before = digests(adapted)
    adapted.use_source_only()
    assert digests(adapted) == before
    with pytest.raises(ConfigurationError, match="nothing to go back to"):
        adapted.use_source_only()


def test_a_method_that_fails_half_way_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Any, tuner: Any, way: Any) -> None:
        with torch.no_grad():
            next(tuner.model.parameters()).add_(1.0)
        raise KeyboardInterrupt

    adapted = adapter(method="adabn")
    adapted.tuner.fit(SOURCE, epochs=1, run=False)
    adapted = DomainAdapter(adapted.tuner, method="adabn")
    before = digests(adapted)
    monkeypatch.setattr(AdaBN, "adapt", failing)
    with pytest.raises(KeyboardInterrupt):
        adapted.fit(SOURCE, TARGET[0], run=False)
    assert digests(adapted) == before


def test_a_report_of_a_model_that_was_not_kept_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiling(self: Any, tuner: Any, way: Any) -> None:
        with torch.no_grad():
            for parameter in tuner.model.head.parameters():
                parameter.zero_()

    monkeypatch.setattr(AdaBN, "adapt", spoiling)
    adapted = adapter(method="adabn")
    adapted.fit(SOURCE, TARGET[0], source_epochs=8, run=False)
    assert adapted.report is not None and adapted.report.chosen_epoch == BEFORE
    assert adapted.report.after is adapted.report.before
    assert adapted.report.verdict is None or not adapted.report.verdict.hurts


def test_the_sources_norms_learn_as_the_targets_do() -> None:
    adapted = adapter(norms="per_domain", learning_rate=None, layer_learning_rates={"0": 3e-4})
    data = data_of(adapted)
    fit = adapted._term_fit(adapted.method, data, 1)  # type: ignore[arg-type]
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in fit._optimizer().param_groups for p in g["params"]}
    copies = fit.objective.norms.originals()
    assert len(copies) == 4 and all(rates[id(own)] == rates[id(theirs)] for own, theirs in copies.items())
    assert len({rates[id(own)] for own in copies}) > 1
    everything = [p for g in fit._optimizer().param_groups for p in g["params"]]
    assert len({id(p) for p in everything}) == len(everything)


def test_views_of_the_source_go_through_its_own_norms() -> None:
    """FixMatch asks about changed source samples: by the source's own scales and statistics, where there are some."""
    adapted = adapter(method="fixmatch", norms="per_domain")
    data = data_of(adapted)
    fit = adapted._term_fit(adapted.method, data, 1)  # type: ignore[arg-type]
    norms, seen = fit.objective.norms, list[tuple[str, int]]()
    layer = norms._layers[0]
    own = {id(layer.weight): "target", id(norms.source[0].weight): "source"}
    layer.register_forward_pre_hook(lambda module, inputs: seen.append((own[id(module.weight)], len(inputs[0]))))
    fit.rehearse()
    assert sorted(seen) == [("source", 4), ("source", 4), ("target", 4), ("target", 4)]


def test_a_run_is_demanded_in_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="no adaptation to resume"):
        adapter().fit(SOURCE, TARGET[0], epochs=1, resume=tmp_path / "none")
    whole = adapter()
    whole.fit(SOURCE, TARGET[0], epochs=1, run=tmp_path / "run")
    again = adapter()
    again.fit(SOURCE, TARGET[0], epochs=1, resume=tmp_path / "run")
    assert digests(again) == digests(whole)
