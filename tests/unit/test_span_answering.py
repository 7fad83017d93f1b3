"""Answers that stand in a text."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from neurenix.data import AnsweredTexts, prepare
from neurenix.data.answered_texts import SpanTargets
from neurenix.errors import ConfigurationError, EmptyDatasetError, LabelMismatchError
from neurenix.metrics import build_metrics
from neurenix.transfer import Finetuner, heads, load_pretrained_model, predict
from neurenix.transfer.heads.span_answering import best_spans, span_loss

PEOPLE, PLACES = ["Anna", "Bob", "Carla", "Dieter"], ["Bern", "Zurich", "Oslo", "Paris"]
TEXTS = [f"{person} lives in {place} now" for person in PEOPLE for place in PLACES]
QUESTIONS = ["who lives there" if number % 2 else "where is it" for number in range(16)]
ANSWERS = [text.split()[0 if number % 2 else 3] for number, text in enumerate(TEXTS)]


@functools.cache
def minilm(max_length: int | None = None) -> Any:
    return load_pretrained_model("minilm", device="cpu", max_length=max_length)


class OwnTokens(nn.Module):
    """A user's module with one vector for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(tokens).relu())


def test_the_loss_is_that_of_torch(generator: torch.Generator) -> None:
    logits, spans = torch.randn(3, 6, 2, generator=generator), torch.tensor([[0, 2], [5, 5], [-1, -1]])
    first, last = (functional.cross_entropy(logits[:2, :, end], spans[:2, end]) for end in (0, 1))
    assert float(span_loss(logits, spans)) == pytest.approx(float(first + last) / 2)
    assert float(span_loss(logits, torch.full((3, 2), -1))) == 0


def test_the_best_span_is_that_of_a_search(generator: torch.Generator) -> None:
    logits, longest = torch.randn(20, 7, 2, generator=generator), 3
    allowed = torch.rand(20, 7, generator=generator) > 0.3
    allowed[:, 2] = True
    spans, shares = best_spans(logits, allowed, longest)
    for row in range(20):
        scores = {
            (first, last): float(logits[row, first, 0] + logits[row, last, 1])
            for first in range(7)
            for last in range(first, min(7, first + longest))
            if allowed[row, first] and allowed[row, last]
        }
        best = max(scores, key=lambda span: scores[span])
        assert tuple(spans[row].tolist()) == best
        assert float(shares[row]) == pytest.approx(
            float(torch.tensor(list(scores.values())).softmax(0).max()), rel=1e-4
        )


def test_metrics_by_hand() -> None:
    """Tokens 2-4 against 3-6: 2 in common of 3 and 4, F1 = 4/7; the second is right, the third is not there."""
    metrics = build_metrics(["exact_span", "span_f1"], "span_answering", 2)
    metrics.update(torch.tensor([[2, 4], [1, 1], [0, 0]]), torch.tensor([[3, 6], [1, 1], [-1, -1]]))
    assert metrics.compute() == pytest.approx({"exact_span": 0.5, "span_f1": (4 / 7 + 1) / 2})


def test_letters_become_tokens_and_tokens_letters() -> None:
    data = AnsweredTexts(["where"], ["unbelievably far: Zurich-West, he said"], ["Zurich-West"])
    preprocess = minilm().preprocess
    inputs, (first, last) = SpanTargets(prepare(data, preprocess, True), preprocess.spans)[0]
    assert 0 < first < last < len(inputs["input_ids"])
    assert preprocess.part(data.pairs[0], int(first), int(last)) == "Zurich-West"
    short = load_pretrained_model("minilm", device="cpu", max_length=8).preprocess
    assert short.spans(data.pairs, data.letters) == [(-1, -1)]


def test_questions_are_answered(tmp_path: Path) -> None:
    data = AnsweredTexts(QUESTIONS, TEXTS, ANSWERS)
    tuner = Finetuner(minilm(), head="span_answering", learning_rate=5e-4)
    losses = tuner.fit(data, batch_size=8, epochs=12, run=False)["loss"]
    assert losses[-1] < 0.5 * losses[0]
    assert tuner.evaluate(data)["exact_span"] > 0.8
    tuner.save(tmp_path)
    loaded = Finetuner.load(tmp_path)
    pairs = list(zip(QUESTIONS, TEXTS, strict=True))
    assert loaded.predict(pairs) == tuner.predict(data) == predict(loaded.model, pairs)
    right = sum(found == answer for found, answer in zip(loaded.predict(pairs), ANSWERS, strict=True))
    assert right > 12


def test_ready_tokens(generator: torch.Generator) -> None:
    inputs = torch.randn(24, 6, 4, generator=generator)
    first = inputs[:, :5, 0].argmax(1)
    targets = torch.stack([first, first + 1], 1)
    inputs[torch.arange(24), first, 1], inputs[torch.arange(24), first + 1, 2] = 5.0, 5.0
    tuner = Finetuner(OwnTokens(), head=heads.SpanAnswering(longest=3), learning_rate=3e-2)
    tuner.fit((inputs, targets), batch_size=8, epochs=20, run=False)
    assert tuner.evaluate((inputs, targets))["exact_span"] > 0.8
    assert set(tuner.predict(inputs)[0]) == {"first", "last", "probability"}


def test_misuse_is_named() -> None:
    inputs = torch.zeros(4, 5, 4)
    tuner = Finetuner(OwnTokens(), head="span_answering")
    before = tuner.model.head.ends.weight.clone()
    for targets in ([[3, 2]] * 4, [[0, 5]] * 4, [[0, 1, 2]] * 4):
        with pytest.raises(LabelMismatchError, match="first"):
            tuner.fit((inputs, torch.tensor(targets)), run=False)
    assert torch.equal(before, tuner.model.head.ends.weight)
    with pytest.raises(ConfigurationError, match="leave num_classes out"):
        Finetuner(OwnTokens(), 3, head="span_answering")
    with pytest.raises(ConfigurationError, match="at least one token"):
        heads.SpanAnswering(longest=0)
    with pytest.raises(LabelMismatchError, match="does not stand"):
        AnsweredTexts(["who"], ["Bob"], ["Anna"])
    with pytest.raises(LabelMismatchError, match="one of each"):
        AnsweredTexts(["who"], ["Bob"], [])
    with pytest.raises(EmptyDatasetError):
        AnsweredTexts([], [], [])
