"""MiniLM's published weights give paraphrases their similarity.

The expected cosines were measured once with transformers' BertModel and tokenizer, averaged over the tokens.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from neurenix.models import PretrainedModel
from neurenix.transfer import load_pretrained_model

pytestmark = pytest.mark.real_weights


@pytest.fixture(scope="module")
def model() -> PretrainedModel:
    return load_pretrained_model("all-minilm-l6-v2", device="cpu")


@torch.inference_mode()
def similarity(model: PretrainedModel, first: str, second: str) -> float:
    vectors = [model({name: value[None] for name, value in model.preprocess(text).items()}) for text in (first, second)]
    return float(cosine_similarity(*vectors))


def test_paraphrases(model: PretrainedModel) -> None:
    assert similarity(model, "A man is eating food", "Someone has a meal") == pytest.approx(0.68, abs=0.02)


def test_unrelated_sentences(model: PretrainedModel) -> None:
    for other in ("The stock market fell sharply today", "A plane is landing at the airport"):
        assert abs(similarity(model, "A man is eating food", other)) < 0.2


@torch.inference_mode()
def test_padding_changes_nothing(model: PretrainedModel) -> None:
    sample = model.preprocess("A man is eating food")
    padded = {name: torch.nn.functional.pad(value, (0, 5))[None] for name, value in sample.items()}
    alone = model({name: value[None] for name, value in sample.items()})
    torch.testing.assert_close(model(padded), alone, rtol=1e-4, atol=1e-5)


def test_the_whole_trunk_is_pretrained(model: PretrainedModel) -> None:
    assert model.load_report.pretrained_share == 1
    assert model.load_report.names("new") == []
    assert model.preprocess.max_length == 256
