"""Accuracies from agreement alone: of made-up models whose accuracies are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neurenix.transfer.adaptation.selection import accuracies_by_agreement

CLASSES, SAMPLES = 5, 5000
RIGHT = (0.9, 0.75, 0.6, 0.5, 0.3)


def answering(right: tuple[float, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(m, n) answers of models that err independently, each class alike, and their true accuracies."""
    truth = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    rows = []
    for share in right:
        errs = torch.rand(SAMPLES, generator=generator) >= share
        other = (truth + torch.randint(1, CLASSES, (SAMPLES,), generator=generator)) % CLASSES
        rows.append(torch.where(errs, other, truth))
    answers = torch.stack(rows)
    return answers, (answers == truth).float().mean(1)


def test_independent_models_are_known_by_how_they_agree(generator: torch.Generator) -> None:
    answers, accuracies = answering(RIGHT, generator)
    found = accuracies_by_agreement(answers, CLASSES)
    assert found is not None
    torch.testing.assert_close(found, accuracies, atol=0.02, rtol=0)


def test_one_good_model_is_found_among_many_poor_ones(generator: torch.Generator) -> None:
    answers, accuracies = answering((0.95, *(0.4,) * 6), generator)
    found = accuracies_by_agreement(answers, CLASSES)
    assert found is not None and int(found.argmax()) == 0
    torch.testing.assert_close(found, accuracies, atol=0.03, rtol=0)


def test_the_same_answers_count_once(generator: torch.Generator) -> None:
    answers, _ = answering(RIGHT, generator)
    once, often = (accuracies_by_agreement(answers[rows], CLASSES) for rows in (range(5), [0, 1, 2, 3, 4, 4, 4, 4]))
    assert once is not None and often is not None
    torch.testing.assert_close(often, once[[0, 1, 2, 3, 4, 4, 4, 4]])


@pytest.mark.parametrize("rows", [[0], [0, 1], [0, 1, 1, 0]])
def test_of_fewer_than_three_models_nothing_can_be_told(rows: list[int], generator: torch.Generator) -> None:
    assert accuracies_by_agreement(answering(RIGHT, generator)[0][rows], CLASSES) is None


def test_models_that_all_say_one_class_and_certain_ones() -> None:
    answers = torch.zeros(4, 50, dtype=torch.long)
    answers[1, :5], answers[2, 5:10] = 1, 2
    found = accuracies_by_agreement(answers, 3)
    assert found is not None and bool(found.isfinite().all()) and bool((found <= 1).all())
    assert found[0] == found[3] and found[0] > found[1]
