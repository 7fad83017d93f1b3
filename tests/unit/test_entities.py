"""Whole entities of tagged tokens: against the definition of CoNLL's evaluation as others publish its numbers."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from neurenix.data import TaggedTexts
from neurenix.errors import ConfigurationError
from neurenix.metrics import MetricSet, build_metrics
from neurenix.metrics.entities import entities_of
from neurenix.transfer import Finetuner, heads, load_pretrained_model

NAMES = ["O", "B-MISC", "I-MISC", "B-PER", "I-PER"]


def counted(names: list[str] = NAMES) -> MetricSet:
    metrics = build_metrics(["entity_f1", "accuracy"], "token_tagging", len(names))
    metrics.name_outputs(names)
    return metrics


def numbers(*sequences: str) -> Tensor:
    """Names apart by blanks -> (n, longest), -100 behind the end and for a dash."""
    rows = [[-100 if word == "-" else NAMES.index(word) for word in sequence.split()] for sequence in sequences]
    longest = max(map(len, rows))
    return torch.tensor([row + [-100] * (longest - len(row)) for row in rows])


def logits(tags: Tensor) -> Tensor:
    return 9.0 * torch.eye(len(NAMES))[tags.clamp(min=0)]


def test_the_example_of_seqeval() -> None:
    """Its page says 0.50: one of two entities has the right ends, and accuracy is that of tokens, 8 of 10."""
    there = numbers("O O O B-MISC I-MISC I-MISC O", "B-PER I-PER O")
    found = numbers("O O B-MISC I-MISC I-MISC I-MISC O", "B-PER I-PER O")
    metrics = counted()
    metrics.update(logits(found), there)
    assert metrics.compute() == pytest.approx({"entity_f1": 0.5, "accuracy": 0.8})


def test_by_hand_over_several_batches() -> None:
    """2 right of 4 found and 3 there: 4/7. Tokens without a tag stand in no entity's way."""
    metrics = counted()
    metrics.update(logits(numbers("B-PER I-PER I-PER O")), numbers("B-PER - I-PER O"))
    metrics.update(logits(numbers("B-PER B-PER O", "B-MISC O O")), numbers("B-PER I-PER O", "B-MISC"))
    assert metrics.compute()["entity_f1"] == pytest.approx(4 / 7)
    state = metrics.state()
    other = counted()
    other.load_state(state)
    assert other.compute() == metrics.compute()
    metrics.reset()
    metrics.update(logits(numbers("O")), numbers("O"))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert math.isnan(metrics.compute()["entity_f1"])
    assert "entity_f1 is NaN" in str(told[0].message)


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("B-PER B-PER", {("PER", 0, 0), ("PER", 1, 1)}),
        ("B-PER I-MISC I-MISC", {("PER", 0, 0), ("MISC", 1, 2)}),
        ("O I-PER I-PER O", {("PER", 1, 2)}),
        ("B-PER I-PER B-MISC O I-MISC", {("PER", 0, 1), ("MISC", 2, 2), ("MISC", 4, 4)}),
        ("O", set()),
    ],
)
def test_where_entities_begin_and_end(tags: str, entities: set[tuple[str, int, int]]) -> None:
    assert entities_of(tags.split()) == entities


@pytest.mark.parametrize(("names", "words"), [([], "have no names"), (["O", "PER"], "among the tags are PER")])
def test_tags_that_mark_no_entities_are_named(names: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        counted(names=names or NAMES).name_outputs(names)


def test_a_tagger_is_measured_by_it() -> None:
    texts = TaggedTexts(["Anna Meier saw Bob", "Bob lives"] * 3, [["B-P", "I-P", "O", "B-P"], ["B-P", "O"]] * 3)
    model = load_pretrained_model("minilm", device="cpu")
    tuner = Finetuner(model, head="token_tagging", num_classes=3, metrics=["entity_f1"], strategy="head")
    with pytest.raises(ConfigurationError, match="have no names"):
        tuner.evaluate(texts)
    tuner.fit(texts, texts, epochs=8, batch_size=2, run=False)
    assert tuner.history["val_entity_f1"][-1] == tuner.evaluate(texts)["entity_f1"] > 0.9
    plain = Finetuner(model, head=heads.TokenTagging(num_outputs=2), metrics=["entity_f1"])
    with pytest.raises(ConfigurationError, match="among the tags are P"):
        plain.fit(TaggedTexts(["Bob saw"], [["P", "O"]]), epochs=1, run=False)
