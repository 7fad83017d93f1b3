"""A class for each token: of texts with a tag for each word, and of whatever else gives tokens."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.functional import normalize

from neurenix.data import TaggedTexts, prepare
from neurenix.data.tagged_texts import TokenTargets
from neurenix.errors import ConfigurationError, EmptyDatasetError, InputMismatchError, LabelMismatchError
from neurenix.transfer import Finetuner, heads, load_pretrained_model, predict
from neurenix.transfer.heads.token_tagging import tagging_loss

TEXTS = ["Anna lives in unbelievably small Zurich-West", "Bob saw Anna", "in Bern Bob lives", "the small one"]
TAGS = [["P", "O", "O", "O", "O", "L"], ["P", "O", "P"], ["O", "L", "P", "O"], ["O", "O", "O"]]


@functools.cache
def minilm() -> Any:
    return load_pretrained_model("minilm", device="cpu")


@functools.cache
def tagger() -> Finetuner:
    tuner = Finetuner(minilm(), head="token_tagging", learning_rate=5e-4)
    tuner.fit(TaggedTexts(TEXTS * 3, TAGS * 3), epochs=4, run=False)
    return tuner


class OwnTokens(nn.Module):
    """A user's module with one vector for each of five tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(tokens).relu())


def test_the_loss_is_that_of_torch(generator: torch.Generator) -> None:
    logits = torch.randn(4, 7, 5, generator=generator)
    tags = torch.randint(5, (4, 7), generator=generator)
    tags[1, 2:] = -100
    expected = functional.cross_entropy(logits.flatten(0, 1), tags.flatten(), ignore_index=-100)
    assert float(tagging_loss(logits, tags)) == pytest.approx(float(expected))
    assert float(tagging_loss(logits, torch.full((4, 7), -100))) == 0


def test_the_first_token_of_a_word_has_its_tag() -> None:
    """WordPiece makes [CLS] bob un ##bel … [SEP] of it; only the first token of each word has a tag."""
    texts = TaggedTexts(["Bob unbelievably-good  ok"], [[2, 0, 1]])
    preprocess = minilm().preprocess
    inputs, tags = TokenTargets(prepare(texts, preprocess, True), preprocess.word_places)[0]
    assert len(tags) == len(inputs["input_ids"]) > 6
    assert tags[0] == tags[-1] == -100
    assert tags[tags >= 0].tolist() == [2, 0, 1]
    assert tags.tolist()[1:3] == [2, 0]
    assert tags[-2] == 1


def test_words_that_were_cut_have_no_tag_and_no_answer() -> None:
    model = load_pretrained_model("minilm", device="cpu", max_length=8)
    assert model.preprocess.word_places(["one two " * 10])[0][-1] == -1
    tuner = Finetuner(model, head=heads.TokenTagging(num_outputs=2, start="zero"))
    with pytest.warns(match="lost their end"):
        answers = tuner.predict(["one two " * 10])[0]
    assert answers[0] is not None and answers[-1] is None and len(answers) == 20


def test_words_are_answered(tmp_path: Path) -> None:
    tuner = tagger()
    assert tuner.history["loss"][-1] < 0.5 * tuner.history["loss"][0]
    assert tuner.predict(TEXTS) == TAGS
    assert tuner.predict("Bob lives") == [["P", "O"]]
    tuner.save(tmp_path)
    loaded = Finetuner.load(tmp_path)
    assert loaded.model.categories == ("L", "O", "P")
    assert loaded.predict(TaggedTexts(TEXTS, TAGS)) == predict(loaded.model, TEXTS) == TAGS
    assert loaded.evaluate(TaggedTexts(TEXTS, TAGS))["accuracy"] == 1.0


def test_tags_are_matched_by_name() -> None:
    in_another_order = TaggedTexts(TEXTS, TAGS, classes=["P", "O", "L"])
    assert tagger().evaluate(in_another_order) == tagger().evaluate(TaggedTexts(TEXTS, TAGS))
    with pytest.raises(LabelMismatchError, match="not in training"):
        tagger().evaluate(TaggedTexts(["Bob"], [["X"]]))


def test_metrics_count_tokens_that_have_a_tag() -> None:
    results = tagger().evaluate(TaggedTexts(["Bob saw", "Anna"], [["P", "P"], ["P"]], classes=["L", "O", "P"]))
    assert results["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", ["vit-tiny-patch16-224", "resnet18"])
def test_places_of_images_are_tokens(name: str, generator: torch.Generator) -> None:
    size = 32 if name.startswith("vit") else 64
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = load_pretrained_model(name, weights=None, device="cpu", input_shape=(size, size, 3))
    mean, std = ((0.5,) * 3, (0.5,) * 3) if name.startswith("vit") else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    images = normalize(torch.rand(6, 3, size, size, generator=generator), mean, std)
    targets = torch.randint(3, (6, 4), generator=generator)
    targets[0, 1] = -100
    tuner = Finetuner(model, head=heads.TokenTagging(num_outputs=3))
    losses = tuner.fit((images, targets), epochs=3, run=False)["loss"]
    assert losses[-1] < losses[0]
    assert [len(tags) for tags in tuner.predict(images)] == [4] * 6


def test_a_module_of_ones_own_with_tokens(generator: torch.Generator) -> None:
    inputs = torch.randn(12, 5, 4, generator=generator)
    targets = (inputs[..., 0] > 0).long() + (inputs[..., 1] > 0).long()
    tuner = Finetuner(OwnTokens(), head="token_tagging", learning_rate=3e-2)
    tuner.fit((inputs, targets), batch_size=4, epochs=40, run=False)
    assert tuner.num_outputs == 3
    assert tuner.evaluate((inputs, targets))["accuracy"] > 0.8


def test_misuse_is_named(generator: torch.Generator) -> None:
    inputs = torch.randn(4, 5, 4, generator=generator)
    tuner = Finetuner(OwnTokens(), head=heads.TokenTagging(num_outputs=3))
    before = tuner.model.head.classify.weight.clone()
    for targets in (torch.full((4, 5), 3), torch.full((4, 5), -7), torch.zeros(4, 3)):
        with pytest.raises(LabelMismatchError, match="num_outputs|for each token"):
            tuner.fit((inputs, targets), run=False)
    assert torch.equal(before, tuner.model.head.classify.weight)
    with pytest.raises(InputMismatchError, match="one vector"):
        Finetuner(OwnVector(), head=heads.TokenTagging(num_outputs=3)).predict(inputs[:, 0])
    with pytest.raises(ConfigurationError, match="below 0"):
        heads.TokenTagging(num_outputs=3, ignore_index=0)
    with pytest.raises(LabelMismatchError, match="3 words and 2 tags"):
        TaggedTexts(["a b c"], [[1, 2]])
    with pytest.raises(LabelMismatchError, match="one for each"):
        TaggedTexts(["a b c"], [])
    with pytest.raises(EmptyDatasetError):
        TaggedTexts([], [])


class OwnVector(nn.Module):
    """A user's module with one vector for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, values: Tensor) -> Tensor:
        return self.head(self.body(values))
