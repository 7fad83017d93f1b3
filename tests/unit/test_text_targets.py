"""Texts as targets: what is said in a sound, the translation of a sentence, and texts that are their own targets."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.families.language_checkpoints import SENTENCES, write_gpt2, write_marian
from tests.families.tones import tones

from neurenix.errors import LabelMismatchError
from neurenix.metrics import METRICS, build_metrics
from neurenix.models import PretrainedModel
from neurenix.models.audio.deepspeech2 import DeepSpeechSizes, new_deepspeech2
from neurenix.transfer import Finetuner, LoraTuner, load_pretrained_model, predict

WORDS = ["ab", "b a", "aab", "bb", "a", "ba ab"]


def listener() -> PretrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return new_deepspeech2(DeepSpeechSizes(hidden=24, layers=1), "_ab ")


def test_sounds_with_texts_beside_them_train_and_are_measured(tmp_path: Path) -> None:
    data = [(tones(word), word) for word in WORDS]
    tuner = Finetuner(listener(), learning_rate=1e-2, precision="fp32")
    history = tuner.fit(data, data, epochs=50, batch_size=3, run=False)
    assert history["val_word_error_rate"][0] > 0.3 and history["val_character_error_rate"][-1] < 0.1
    found = tuner.evaluate(data)
    heard = predict(tuner.model, [sound for sound, _ in data])
    wrong = sum(edits(one.split(), other.split()) for one, other in zip(heard, WORDS, strict=True))
    assert found["word_error_rate"] == pytest.approx(wrong / sum(len(word.split()) for word in WORDS))
    assert tuner.model.categories == ()


def edits(found: list[str], wanted: list[str]) -> int:
    """Levenshtein's distance by its recursion."""
    if not found or not wanted:
        return len(found) + len(wanted)
    if found[0] == wanted[0]:
        return edits(found[1:], wanted[1:])
    return 1 + min(edits(found[1:], wanted), edits(found, wanted[1:]), edits(found[1:], wanted[1:]))


@pytest.mark.parametrize(("name", "split"), [("word_error_rate", str.split), ("character_error_rate", list)])
def test_error_rates_are_edits_for_each_thing_said(name: str, split: Any) -> None:
    pairs = [("the cat sat", "the cat sat down"), ("a b", "b a"), ("", "x y"), ("hello", "hello")]
    metrics = build_metrics([name], "transcription", 5)
    for place in range(0, 4, 2):
        metrics.update(pairs[place : place + 2], None)
    wrong = sum(edits(split(heard), split(said)) for heard, said in pairs)
    assert metrics.compute()[name] == pytest.approx(wrong / sum(len(split(said)) for _, said in pairs))
    assert METRICS[name].higher_is_better is False
    again = build_metrics([name], "transcription", 5)
    again.load_state(metrics.state())
    assert again.compute() == metrics.compute()


def test_letters_without_a_symbol_are_named() -> None:
    with pytest.raises(LabelMismatchError, match="no symbol stands for 'é'"):
        Finetuner(listener()).fit([(tones("ab"), "ab"), (tones("a"), "é")], epochs=1, run=False)


def test_sentences_and_their_translations(tmp_path: Path) -> None:
    write_marian(tmp_path)
    model = load_pretrained_model("opus-mt-en-de", weights=tmp_path, device="cpu")
    pairs = list(zip(SENTENCES[:3], ["der hund", "ein mann liebt den alten film sehr", "regen"], strict=True))
    for tuner in (
        Finetuner(model, learning_rate=1e-2, precision="fp32"),
        LoraTuner(model, learning_rate=1e-2, precision="fp32"),
    ):
        history = tuner.fit(pairs, pairs, epochs=4, batch_size=2, run=False)
        assert history["loss"][-1] < history["loss"][0] and math.isfinite(history["val_loss"][-1])


def test_texts_that_are_their_own_targets(tmp_path: Path) -> None:
    write_gpt2(tmp_path)
    model = load_pretrained_model("gpt2", weights=tmp_path, device="cpu")
    tuner = Finetuner(model, learning_rate=1e-3, precision="fp32")
    history = tuner.fit(SENTENCES[:3], SENTENCES[3:], epochs=3, batch_size=2, run=False)
    assert history["loss"][-1] < history["loss"][0]
    with pytest.raises(LabelMismatchError, match="give the texts alone"):
        tuner.fit([(text, "a label") for text in SENTENCES], epochs=1, run=False)
