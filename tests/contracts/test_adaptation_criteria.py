"""What every criterion promises: finite, the same each time, of few samples, for its tasks only, saved as a record."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import get_args

import pytest
import torch

from neurenix.errors import ConfigurationError, LabelMismatchError
from neurenix.metrics import TaskKind
from neurenix.transfer import flat_record
from neurenix.transfer.adaptation.selection import CRITERIA, Evidence, criteria_for
from neurenix.transfer.adaptation.selection.choice import DEFAULT_CRITERIA
from neurenix.transfer.adaptation.selection.guards import guards_for

CLASSES = 3
every_criterion = pytest.mark.parametrize("name", CRITERIA)


def evidence(task: TaskKind, source: int = 50, target: int = 40) -> Evidence:
    generator = torch.Generator().manual_seed(1)
    several = torch.randint(2, (source, CLASSES), generator=generator).float()
    return Evidence(
        task=task,
        source_features=torch.randn(source, 4, generator=generator),
        source_outputs=torch.randn(source, CLASSES, generator=generator),
        source_targets=several.argmax(1) if task == "multi_class" else several,
        target_features=torch.randn(target, 4, generator=generator),
        target_outputs=torch.randn(target, CLASSES, generator=generator),
    )


@every_criterion
def test_it_is_finite_and_the_same_each_time(name: str) -> None:
    for task in CRITERIA[name].tasks:
        known = evidence(task)
        before = {field: value.clone() for field, value in vars(known).items() if isinstance(value, torch.Tensor)}
        torch.manual_seed(0)
        first = CRITERIA[name]().score(known)
        torch.manual_seed(1)
        assert math.isfinite(first) and CRITERIA[name]().score(known) == first
        assert all(torch.equal(getattr(known, field), value) for field, value in before.items())


@every_criterion
def test_the_smallest_evidence_is_enough(name: str) -> None:
    for task in CRITERIA[name].tasks:
        assert math.isfinite(CRITERIA[name]().score(evidence(task, source=1, target=1)))


@every_criterion
def test_what_is_not_finite_is_nan(name: str) -> None:
    for task in CRITERIA[name].tasks:
        known = evidence(task)
        broken = replace(known, target_outputs=known.target_outputs.where(known.target_outputs < 1, torch.inf))
        assert math.isnan(CRITERIA[name]().score(broken))


@every_criterion
def test_other_tasks_are_refused(name: str) -> None:
    for task in set(get_args(TaskKind)) - set(CRITERIA[name].tasks):
        with pytest.raises(ConfigurationError, match=f"not defined for {task}"):
            CRITERIA[name]().score(replace(evidence("regression"), task=task))


@every_criterion
def test_it_is_a_record_with_a_paper(name: str) -> None:
    criterion = CRITERIA[name]()
    assert flat_record.from_record(CRITERIA, flat_record.record_of(CRITERIA, criterion)) == criterion
    assert re.search(r"(19|20)\d\d", CRITERIA[name].__doc__ or ""), "cite its paper"


def test_of_many_samples_some_are_looked_at() -> None:
    many = evidence("multi_class", source=4100, target=9000).capped()
    assert len(many.source_targets) == len(many.target_outputs) == len(many.target_features) == 4000
    assert torch.equal(many.target_outputs, evidence("multi_class", source=4100, target=9000).capped().target_outputs)
    assert not torch.equal(many.target_outputs, many.capped(4000, seed=1).target_outputs) or many.capped() is many


@pytest.mark.parametrize("task", DEFAULT_CRITERIA)
def test_the_default_criteria_and_guards_are_defined(task: TaskKind) -> None:
    needed = {*DEFAULT_CRITERIA[task], *(guard.criterion for guard in guards_for(task))}
    assert needed <= set(criteria_for(task))


def test_evidence_of_different_samples_is_refused() -> None:
    known = evidence("multi_class")
    with pytest.raises(LabelMismatchError, match="the source has 50, 50 and 49"):
        replace(known, source_targets=known.source_targets[1:])
    with pytest.raises(LabelMismatchError, match="4 and 3 wide"):
        replace(known, target_features=known.target_features[:, 1:])
