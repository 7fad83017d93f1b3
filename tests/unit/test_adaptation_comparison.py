"""compare_adaptations: a row for each method, one choice, and figures that are kept for a call that was ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neurenix.errors import ConfigurationError, UnknownNameError
from neurenix.models import adopt
from neurenix.storage import read_json, write_json
from neurenix.transfer import DomainAdapter, compare_adaptations
from neurenix.transfer.adaptation import AdaptationComparison, AlarmRecord, _report, comparison
from neurenix.transfer.adaptation.gap import nearest_neighbours
from neurenix.transfer.adaptation.methods import dann
from neurenix.transfer.adaptation.selection import LabelFreeChooser

pytestmark = pytest.mark.filterwarnings("ignore::neurenix.errors.NegativeTransferWarning")
Labelled = tuple[Tensor, Tensor]


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Sequential(nn.Linear(4, 16), nn.ReLU()), nn.Linear(16, 3))


def domain(seed: int, shift: float) -> Labelled:
    generator, labels = torch.Generator().manual_seed(seed), torch.arange(60) % 3
    points = 0.3 * torch.randn(60, 4, generator=generator)
    points[torch.arange(60), labels] += 1.5
    return points + shift, labels


SOURCE, TARGET = domain(1, 0.0), domain(2, 0.5)


class Cry:
    """A verdict."""

    def __init__(self, hurts: bool) -> None:
        self.hurts = hurts


def compared(run: Path | None = None, **changed: Any) -> AdaptationComparison:
    options: dict[str, Any] = {
        "methods": ["dann", "mcc"],
        "target": TARGET[0],
        "epochs": 2,
        "seeds": (0, 1),
        "settings": {"num_classes": 3, "head_hidden_sizes": (8,)},
        **changed,
    }
    methods, target, reported = options.pop("methods"), options.pop("target"), options.pop("reported", TARGET)
    return compare_adaptations(network(), SOURCE, target, methods, reported, run=run, **options)


def test_a_row_for_each_method_and_one_that_is_chosen() -> None:
    table = compared(methods={"own dann": dann.DANN(), "mcc": "mcc"})
    assert [row.name for row in table.rows] == ["source only", "own dann", "mcc"]
    assert table.chosen in table.rows and not table.left_out
    assert all(row.target is not None and 0 <= row.target <= (row.best or 1.0) <= 1 for row in table.rows[1:])
    assert str(table).count("*") == 2  # the chosen row's mark, and what it means


METHODS = ["dann", "mcc", "deep_coral", "mdd"]
ADAPTED = {"num_classes": 3, "head_hidden_sizes": (8,), "chooses": False, "learning_rate": 0.03}


def test_what_neighbours_tell_is_told() -> None:
    table = compared(methods=METHODS, settings=ADAPTED, seeds=(0,))
    assert all(row.told is not None and f"{row.told:.4f}" in str(table) for row in table.rows)
    assert len({row.told for row in table.rows}) > 2


def test_neighbours_are_those_of_the_model_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(comparison, "told_by_neighbours", lambda answers, nearest, *others: seen.append(nearest) or 0.5)
    compared(settings={**ADAPTED, "precision": "fp32"})
    with torch.no_grad():
        expected = nearest_neighbours(adopt(network()).embed(TARGET[0]))
    assert len(seen) == 6 and all(torch.equal(nearest, expected) for nearest in seen)


@pytest.mark.parametrize("best", range(len(METHODS) + 1))
def test_the_row_that_neighbours_tell_best_is_chosen(best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter(torch.where(torch.arange(len(METHODS) + 1) == best, 0.9, 0.5).tolist())
    monkeypatch.setattr(comparison, "told_by_neighbours", lambda answers, nearest, *others: next(told))
    monkeypatch.setattr(comparison, "guards_for", lambda task: ())
    table = compared(methods=METHODS, settings=ADAPTED, epochs=1, seeds=(0,))
    assert table.chosen is table.rows[best]


def test_a_row_that_lost_classes_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([0.1, 0.9, 0.2])
    monkeypatch.setattr(comparison, "told_by_neighbours", lambda answers, nearest, *others: next(told))
    monkeypatch.setattr(LabelFreeChooser, "passed", lambda chooser, place: ("source_error",) if place != 1 else ())
    assert compared(methods=["dann", "mcc"], seeds=(0,)).chosen.name == "mcc"


def test_rows_that_kept_the_sources_model_give_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though what a classical method did, and took back, was looked at."""
    seen: list[Tensor] = []
    monkeypatch.setattr(comparison, "told_by_neighbours", lambda answers, nearest, *others: seen.append(answers) or 0.5)
    table = compared(methods=["density_ratio", "transfer_components", "dann"], seeds=(0,))
    source, *others = seen
    kept = [row.scores == table.rows[0].scores for row in table.rows[1:]]
    assert any(kept) and all(torch.equal(row, source) for row, same in zip(others, kept, strict=True) if same)


def test_the_alarm_of_each_row_is_told_and_counted() -> None:
    """A hundred times the rate unlearns the source, which is heard."""
    ruined = {**ADAPTED, "learning_rate": 3.0}
    table = compared(methods=["dann", "mcc"], settings=ruined, epochs=4, source_epochs=0)
    source, *others = table.rows
    assert source.alarm is None and {row.alarm for row in others} <= {0.0, 0.5, 1.0}
    assert table.alarms is not None and table.alarms.hurt + table.alarms.unhurt == 4
    assert table.alarms.found + table.alarms.false > 0
    assert sum(2 * (row.alarm or 0.0) for row in others) == table.alarms.found + table.alarms.false
    assert str(table.alarms) in str(table)


@pytest.mark.parametrize("cries", [True, False])
def test_the_alarm_is_counted_by_seed_and_by_whom_it_is_right_about(
    cries: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_report, "judge_adaptation", lambda *asked, **known: Cry(cries))
    table = compared(settings=ADAPTED)
    assert [row.alarm for row in table.rows] == [None, float(cries), float(cries)] and table.alarms is not None
    assert table.alarms.found == cries * table.alarms.hurt and table.alarms.false == cries * table.alarms.unhurt
    assert f" {cries:4.0%} " in str(table)


def test_an_alarm_without_labels_is_told_and_not_counted() -> None:
    table = compared(settings=ADAPTED, reported=None, seeds=(0,))
    assert table.alarms is None and "alarm cried" not in str(table) and table.rows[1].alarm is not None


def test_who_ends_with_the_model_from_before_raises_no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_report, "judge_adaptation", lambda *asked, **known: Cry(True))
    table = compared(methods=["density_ratio", "transfer_components", "dann"], seeds=(0,))
    kept = [row.scores == table.rows[0].scores for row in table.rows[1:]]
    assert any(kept) and [row.alarm for row in table.rows[1:]] == [float(not same) for same in kept]


def test_a_gain_is_over_the_sources_model_that_the_adaptation_began_with(tmp_path: Path) -> None:
    """Which another processor trained to other last digits: a call that goes on there has two of them."""
    compared(tmp_path, settings=ADAPTED, seeds=(0,))
    for file in tmp_path.glob("*.json"):
        kept = read_json(file)
        kept["figures"]["before"]["scores"]["target_accuracy"] = 1.0 if file.name.startswith("mcc") else 0.0
        kept["figures"]["after"]["scores"]["target_accuracy"] = 0.5
        write_json(file, kept)
    alarms = compared(tmp_path, settings=ADAPTED, seeds=(0,)).alarms
    assert alarms is not None and (alarms.hurt, alarms.unhurt) == (1, 1)


def test_a_record_of_alarms() -> None:
    record = AlarmRecord.of([(True, -0.1), (False, -0.2), (True, 0.0), (False, 0.3), (False, 0.0)])
    assert record == AlarmRecord(hurt=2, found=1, unhurt=3, false=1)
    assert str(record) == "the alarm cried for 1 of 2 adaptations that hurt, and for 1 of 3 that did not"


def test_without_neighbours_for_all_the_criteria_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where samples of the target cannot be read."""
    whole = comparison.reference_neighbours

    def fewer(*given: Any) -> Tensor:
        found = whole(*given)
        assert found is not None
        return found[:-1]

    monkeypatch.setattr(comparison, "reference_neighbours", fewer)
    table = compared(methods=["mcc"], seeds=(0,))
    assert [row.told for row in table.rows] == [None, None] and table.chosen in table.rows


def test_values_have_no_neighbours_and_the_criteria_choose() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Sequential(nn.Linear(4, 16), nn.ReLU()), nn.Linear(16, 1))
    source, target = ((points, points[:, :1].clone()) for points, _ in (SOURCE, TARGET))
    options: dict[str, Any] = {"settings": {"num_classes": 1, "loss": "mse"}, "epochs": 1}
    table = compare_adaptations(model, source, target[0], ["deep_coral", "dan"], target, **options)
    assert [row.told for row in table.rows] == [None] * 3 and table.chosen in table.rows


def test_a_method_that_has_no_place_is_left_out_and_told() -> None:
    table = compared(methods=["mcc", "adabn"], seeds=(0,))
    assert list(table.left_out) == ["adabn"] and "left out: adabn" in str(table)


def test_wrong_methods_and_no_seeds() -> None:
    with pytest.raises(UnknownNameError, match="deep_coral"):
        compared(methods=["deep_corl"])
    with pytest.raises(ConfigurationError, match="seeds"):
        compared(seeds=())
    with pytest.raises(ConfigurationError, match="none of"):
        compared(methods=["adabn"])


@pytest.mark.parametrize(
    ("name", "hint"),
    [("learning_rates", "learning_rate"), ("method", "no setting of a comparison"), ("seed", "takes seeds=… itself")],
)
def test_settings_of_no_such_name(name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=hint):
        compared(settings={name: 1})


class Fits:
    """Counts the adaptations that are run; ends the process, as it were, before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.end_before = 0, 10**9
        fit = DomainAdapter.fit

        def counted(adapter: DomainAdapter, *arguments: Any, **options: Any) -> Any:
            if self.count == self.end_before:
                raise KeyboardInterrupt
            self.count += 1
            return fit(adapter, *arguments, **options)

        monkeypatch.setattr(DomainAdapter, "fit", counted)


def test_a_call_that_was_ended_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, fits = compared(), Fits(monkeypatch)
    fits.end_before = 3
    with pytest.raises(KeyboardInterrupt):
        compared(tmp_path / "run")
    fits.end_before = 10**9
    table = compared(tmp_path / "run")
    assert fits.count == 4
    assert [replace(row, seconds=0.0) for row in table.rows] == [replace(row, seconds=0.0) for row in whole.rows]
    assert table.alarms == whole.alarms
    assert compared(tmp_path / "run").chosen.name == whole.chosen.name and fits.count == 4


@pytest.mark.parametrize(
    "changed",
    [
        {"epochs": 3},
        {"batch_size": 16},
        {"target": TARGET[0] + 1e-6},
        {"reported": (TARGET[0], TARGET[1].flip(0))},
        {"settings": {"num_classes": 3, "head_hidden_sizes": (9,)}},
        {"methods": [dann.DANN(weight=0.5)]},
    ],
    ids=["epochs", "batch size", "data", "labels of the report", "settings", "method"],
)
def test_what_another_call_kept_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    fits = Fits(monkeypatch)
    compared(tmp_path, methods=["dann"], seeds=(0,))
    if "methods" in changed:
        changed = {"methods": {"dann": changed["methods"][0]}}
    compared(tmp_path, **{"methods": ["dann"], "seeds": (0,), **changed})
    assert fits.count == 2


def test_random_data_cannot_be_told_apart(tmp_path: Path) -> None:
    class Noisy:
        def __len__(self) -> int:
            return len(TARGET[0])

        def __getitem__(self, place: int) -> Tensor:
            return TARGET[0][place] + torch.rand(4)

    with pytest.raises(ConfigurationError, match="target samples differ each time"):
        compared(tmp_path, target=Noisy(), seeds=(0,))


def test_a_method_whose_package_fails_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> Any:
        raise ValueError("Input X contains NaN.")

    monkeypatch.setattr(dann.DANN, "term", failing)
    table = compared(seeds=(0,))
    assert [row.name for row in table.rows] == ["source only", "mcc"]
    assert table.left_out == {"dann": "ValueError: Input X contains NaN."}


def test_scores_that_one_method_lacks_are_found_in_the_others(tmp_path: Path) -> None:
    """adabn cannot ask about the source; whichever ran first, in whichever call, the table is the same."""

    def batch_normed() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU()), nn.Linear(16, 3))

    def table(methods: list[str], seeds: tuple[int, ...], run: Path | None = None) -> AdaptationComparison:
        options: dict[str, Any] = {"epochs": 1, "seeds": seeds, "settings": {"num_classes": 3}}
        return compare_adaptations(batch_normed(), SOURCE, TARGET[0], methods, TARGET, run=run, **options)

    table(["dann"], (0,), tmp_path)
    mixed = table(["adabn", "dann"], (0, 1), tmp_path)
    fresh = table(["dann", "adabn"], (0, 1))
    sources = [{row.name: row.scores for row in rows}["source only"] for rows in (mixed.rows, fresh.rows)]
    assert sources[0] == pytest.approx(sources[1]) and "source_error" in sources[0]


def test_norms_are_given_to_those_that_take_them() -> None:
    table = compared(methods=["dann", "feature_coral"], settings={"num_classes": 3, "norms": "separate"}, seeds=(0,))
    assert not table.left_out and len(table.rows) == 3
