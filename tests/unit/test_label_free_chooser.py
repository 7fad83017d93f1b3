"""The choice among candidates: ranks, guards, what is kept, and that what was dropped could not have won."""

from __future__ import annotations

import math
from itertools import product

import numpy
import pytest

from neurenix.errors import ConfigurationError, UnknownNameError
from neurenix.transfer.adaptation.selection import CRITERIA, Guard, LabelFreeChooser, guards_for

CRITERIA_USED = ("im", "dev", "snd")
GUARDS = guards_for("multi_class")
NEEDED = (*CRITERIA_USED, *(guard.criterion for guard in GUARDS))


def filled(rows: list[dict[str, float]], total: int | None = None) -> LabelFreeChooser[int]:
    chooser = LabelFreeChooser[int](CRITERIA_USED, GUARDS, total)
    for place, row in enumerate(rows):
        chooser.add(row, lambda place=place: place)
    return chooser


def drawn_rows(generator: numpy.random.Generator, count: int) -> list[dict[str, float]]:
    """Coarse values, so that ties are frequent."""
    return [{name: float(generator.integers(0, 4)) / 8 for name in NEEDED} for _ in range(count)]


def by_hand(rows: list[dict[str, float]]) -> int:
    """The choice with all candidates at hand, as a table: average ranks by numpy, guards written out."""
    table = numpy.array(
        [[row[name] * (1 if CRITERIA[name].higher_is_better else -1) for name in NEEDED] for row in rows]
    )
    ranked = table[:, : len(CRITERIA_USED)]
    ranks = (ranked[None, :, :] > ranked[:, None, :]).sum((1, 2))
    errors, spreads = (numpy.array([row[name] for row in rows]) for name in ("source_error", "class_spread"))
    passed = (errors <= errors.min() + 0.05).astype(int) + (spreads - 1 >= (spreads[0] - 1) / 2)
    return min(range(len(rows)), key=lambda place: (-passed[place], ranks[place], place))


@pytest.mark.parametrize("total", [None, 9])
@pytest.mark.parametrize("seed", range(40))
def test_the_choice_is_that_of_the_whole_table_after_every_candidate(seed: int, total: int | None) -> None:
    rows = drawn_rows(numpy.random.default_rng(seed), 9)
    for count in range(1, 10):
        place, snapshot = filled(rows[:count], total).chosen()
        assert place == snapshot == by_hand(rows[:count])


def test_all_small_tables_choose_what_is_kept() -> None:
    """Every way to give three candidates two values in two criteria and the guards' best: dropped ones never win."""
    for values in product((0.0, 1.0), repeat=6):
        rows = [
            {"im": values[2 * i], "dev": values[2 * i + 1], "snd": 0.0, "source_error": 0.0, "class_spread": 1.0}
            for i in range(3)
        ]
        chooser = filled(rows)
        assert chooser.chosen()[0] == by_hand(rows)
        assert by_hand(rows) in chooser.kept


def test_only_candidates_that_can_win_are_kept() -> None:
    row = {"im": 1.0, "dev": 1.0, "snd": 1.0, "source_error": 0.0, "class_spread": 3.0}
    chooser = filled([row, {**row, "im": 0.5}, {**row, "snd": 2.0}, {**row, "snd": 2.5, "im": 0.9}])
    assert chooser.kept == (2, 3)


def test_a_dominated_candidate_costs_no_snapshot() -> None:
    row = dict.fromkeys(NEEDED, 0.5)
    chooser = filled([row])
    assert not chooser.add(row, lambda: pytest.fail("a snapshot was taken"))


def test_the_last_candidate_leaves_one_snapshot() -> None:
    """With nothing to come, whoever is behind in ranks cannot win."""
    rows = [{**dict.fromkeys(NEEDED, 0.5), "im": place / 10, "snd": -(place % 4) / 10} for place in range(6)]
    assert len(filled(rows).kept) > 1
    assert len(filled(rows, total=6).kept) == 1


def test_collapse_to_one_class_is_not_chosen() -> None:
    """SND and entropy are best where all samples get one answer; the guard on the classes sees it."""
    healthy = {"im": 1.0, "dev": 0.3, "snd": 3.0, "source_error": 0.02, "class_spread": 4.0}
    collapsed = {"im": 0.0, "dev": 0.2, "snd": 6.0, "source_error": 0.02, "class_spread": 1.01}
    chooser = filled([healthy, collapsed])
    assert chooser.chosen()[0] == 0
    assert chooser.passed(1) == ("source_error",)


def test_collapse_of_two_classes_is_seen_too() -> None:
    """Half of two classes is the one that is always there."""
    healthy = {"im": 0.5, "dev": 0.3, "snd": 3.0, "source_error": 0.02, "class_spread": 1.9}
    assert filled([healthy, {**healthy, "snd": 6.0, "class_spread": 1.4}]).passed(1) == ("source_error",)
    assert filled([healthy, {**healthy, "snd": 6.0, "class_spread": 1.5}]).chosen()[0] == 1


def test_confident_nonsense_is_not_chosen() -> None:
    """A model that unlearned the source, and is sure of everything."""
    healthy = {"im": 1.0, "dev": 0.3, "snd": 3.0, "source_error": 0.02, "class_spread": 4.0}
    nonsense = {"im": 1.6, "dev": 0.2, "snd": 6.0, "source_error": 0.4, "class_spread": 5.0}
    assert filled([healthy, nonsense]).chosen()[0] == 0


def test_what_is_not_a_number_is_last() -> None:
    row = dict.fromkeys(NEEDED, 0.5)
    assert filled([{name: math.nan for name in NEEDED}, row]).chosen()[0] == 1


def test_state_goes_on_in_another_process() -> None:
    rows = drawn_rows(numpy.random.default_rng(5), 10)
    whole, first = filled(rows), filled(rows[:6])
    second = LabelFreeChooser[int](CRITERIA_USED, GUARDS)
    second.load_state(first.state())
    for place, row in enumerate(rows[6:], start=6):
        second.add(row, lambda place=place: place)
    assert (second.chosen(), second.kept, second.scores) == (whole.chosen(), whole.kept, whole.scores)


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigurationError, match="at least one of"):
        LabelFreeChooser([])
    with pytest.raises(UnknownNameError, match="closest: snd"):
        LabelFreeChooser(["snb"])
    with pytest.raises(UnknownNameError, match="Needed: im"):
        LabelFreeChooser(["im"]).add({"snd": 1.0}, dict)
    with pytest.raises(ConfigurationError, match="no candidate"):
        LabelFreeChooser(["im"]).chosen()
    other = LabelFreeChooser[int](["im"])
    with pytest.raises(ConfigurationError, match="not by"):
        other.load_state(filled([]).state())


def test_guards_can_be_given() -> None:
    chooser = LabelFreeChooser[int](["im"], [Guard("source_risk", lambda risks: 2 * min(risks))])
    chooser.add({"im": 1.0, "source_risk": 0.1}, lambda: 0)
    chooser.add({"im": 2.0, "source_risk": 0.3}, lambda: 1)
    assert chooser.chosen() == (0, 0)
