"""A real text encoder learns a small task: raw strings in, class names out, also from a standalone folder."""

from __future__ import annotations

import numpy
import pytest

from neurenix.data import TextDataset
from neurenix.transfer import Finetuner, load_pretrained_model

FOOD = ["fresh bread and butter", "a bowl of hot soup", "grilled fish with rice", "sweet apple pie", "cheese and wine"]
SPORT = ["the team won the match", "she ran a marathon", "a goal in the last minute", "tennis at noon", "he swims fast"]
UNSEEN = ["roast chicken for dinner", "the striker scored twice", "chocolate cake", "a cycling race"]


@pytest.mark.real_weights
def test_minilm_learns_two_topics_from_ten_sentences(tmp_path):
    model = load_pretrained_model("all-minilm-l6-v2", domain="nlp", max_length=32, device="cpu")
    data = TextDataset(FOOD + SPORT, [0] * 5 + [1] * 5, classes=["food", "sport"])
    tuner = Finetuner(model, num_classes=2, strategy="lp_ft", freeze_layers=["embeddings", "encoder.layer.[0-3]"])
    tuner.fit(data, batch_size=5, epochs=2)
    assert tuner.predict(UNSEEN).tolist() == ["food", "sport", "food", "sport"]
    expected = tuner.predict_proba(UNSEEN)
    for standalone in (False, True):
        tuner.save(tmp_path / str(standalone), standalone=standalone)
        again = Finetuner.load(tmp_path / str(standalone), device="cpu")
        numpy.testing.assert_array_equal(again.predict_proba(UNSEEN), expected)
