"""Marian's translation models: the library's own classes on the same files are the independent implementation."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.families.language_checkpoints import SENTENCES, write_marian

from neurenix.errors import ConfigurationError, DamagedFileError, TextTooLongError, WeightsMismatchError
from neurenix.models import ARCHITECTURES, BuildOptions, PretrainedModel
from neurenix.models.nlp import generate
from neurenix.text import TranslationPreprocess
from neurenix.transfer import load_pretrained_model

TEXTS = ["the dog eats food", "a happy day", "rain"]
FILES = ("source.spm", "target.spm", "vocab.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("marian")
    write_marian(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> PretrainedModel:
    return load_pretrained_model("opus-mt-en-de", weights=folder, device="cpu")


@pytest.fixture(scope="module")
def library(folder: Path) -> Any:
    return transformers.MarianMTModel.from_pretrained(folder, local_files_only=True).eval()


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    with pytest.warns(UserWarning, match="sacremoses"):
        return transformers.MarianTokenizer.from_pretrained(folder, local_files_only=True)


def inputs_of(model: PretrainedModel) -> dict[str, torch.Tensor]:
    samples = [(model.preprocess(text), 0) for text in TEXTS]
    return model.preprocess.wrap([(text, 0) for text in TEXTS], False).collate(samples)[0]


def test_published_sizes() -> None:
    with torch.device("meta"):
        parts = ARCHITECTURES["opus-mt-en-de"].build(BuildOptions(num_classes=58101))
    trained = [*parts.trunk.parameters(), *parts.head.parameters()]
    assert sum(parameter.numel() for parameter in trained) == 73_886_208
    stored = {**parts.trunk.state_dict(prefix="trunk."), **parts.head.state_dict(prefix="head.")}
    # with both tables of positions and the bias: 4 bytes each are the 298 MB of the published file
    assert sum(value.numel() for value in stored.values()) == 73_886_208 + 2 * 512 * 512 + 58101
    assert ARCHITECTURES["opus-mt-en-de"].weights["opus-mt-en-de"].licence == "cc-by-4.0"


@pytest.mark.parametrize("positions", [True, False], ids=["with positions", "without"])
def test_everything_in_the_file_is_used(tmp_path: Path, positions: bool, model: PretrainedModel) -> None:
    write_marian(tmp_path, positions=positions)
    found = load_pretrained_model("marian", weights=tmp_path, device="cpu")
    assert {fate.fate for fate in found.load_report.tensors} == {"matched", "dropped"}
    assert set(found.load_report.names("dropped")) == {  # the embedding once more
        "head.decoder.embed_tokens.weight",
        "trunk.encoder.embed_tokens.weight",
    }
    assert torch.equal(found(inputs_of(model)), model(inputs_of(model)))
    stored = {f"model.{name}" for name in ("encoder.embed_positions.weight", "decoder.embed_positions.weight")}
    names = {name.partition(".")[2] for name in found.state_dict()}
    published = set(torch.load(tmp_path / "pytorch_model.bin", weights_only=True))
    assert (stored <= published) == positions
    kept = {name.removeprefix("model.") for name in published if "embed_tokens" not in name}
    assert names == kept


def test_positions_are_sines_and_cosines(model: PretrainedModel) -> None:
    table = model.trunk.encoder.embed_positions.weight
    width = table.shape[1]
    for place in (0, 1, 17, 31):
        for pair in range(width // 2):
            angle = place / 10000 ** (2 * pair / width)
            assert float(table[place, pair]) == pytest.approx(math.sin(angle), abs=1e-6)
            assert float(table[place, width // 2 + pair]) == pytest.approx(math.cos(angle), abs=1e-6)
    assert not any("embed_positions" in name for name, _ in model.named_parameters())


@torch.inference_mode()
def test_features_and_scores_equal_the_library_bit_by_bit(model: PretrainedModel, library: Any) -> None:
    inputs = inputs_of(model)
    assert (inputs["attention_mask"] == 0).any()
    assert torch.equal(model.features(inputs), library.model.encoder(**inputs).last_hidden_state)
    start = library.config.decoder_start_token_id
    given = {**inputs, "decoder_input_ids": torch.tensor([[start, 3, 4], [start, 5, 6], [start, 7, 8]])}
    assert torch.equal(model(given), library(**given).logits)
    assert bool(model.head.final_logits_bias.any())


def test_loss_equals_the_library(model: PretrainedModel, library: Any, tokenizer: Any) -> None:
    targets = ["der hund frisst", "ein guter tag", "regen"]
    encoded = model.preprocess.encode_targets(targets)
    labels = tokenizer(text_target=targets, return_tensors="pt", padding=True)["input_ids"]
    assert torch.equal(encoded.masked_fill(encoded == -100, model.preprocess.pad_id), labels)
    inputs = inputs_of(model)
    found = model.head.losses(model.features(inputs), inputs, encoded)["next_token"]
    assert torch.equal(found, library(**inputs, labels=encoded).loss)


@pytest.mark.parametrize("num_beams", [1, 4])
def test_translations_equal_the_library(model: PretrainedModel, library: Any, tokenizer: Any, num_beams: int) -> None:
    given = tokenizer(TEXTS, return_tensors="pt", padding=True)
    found = library.generate(**given, max_new_tokens=9, num_beams=num_beams, do_sample=False)
    expected = tokenizer.batch_decode(found, skip_special_tokens=True)
    assert generate(model, TEXTS, max_new_tokens=9, num_beams=num_beams) == expected
    assert all(expected)


def test_translations_longer_than_the_positions(model: PretrainedModel) -> None:
    with pytest.raises(ConfigurationError, match="64 positions"):
        generate(model, TEXTS[0], max_new_tokens=64)


def test_tokens_equal_the_library(folder: Path, tokenizer: Any) -> None:
    ours = TranslationPreprocess({name: (folder / name).read_bytes() for name in FILES}, 512)
    for text in [*SENTENCES, "", "  two  spaces ", "größe 东京", ">>deu<< the dog", ">>xyz<< the dog", "a >>deu<< b"]:
        found = ours(text)["input_ids"].tolist()
        assert found == tokenizer(text)["input_ids"]
        assert ours.decode(found) == tokenizer.decode(found, skip_special_tokens=True)
        target = ours.encode_targets([text])[0].tolist()
        assert target == tokenizer(text_target=text)["input_ids"]
    many = ours.encode_many(SENTENCES)
    assert [row.tolist() for row in many] == [tokenizer(text)["input_ids"] for text in SENTENCES]


def test_the_names_of_special_tokens_end_no_sequence(model: PretrainedModel) -> None:
    assert model.preprocess("the dog </s> the cat")["input_ids"].tolist().count(0) == 1


def test_long_texts_are_cut_before_their_end(folder: Path, tokenizer: Any) -> None:
    model = load_pretrained_model("marian", weights=folder, max_length=8, device="cpu")
    text = SENTENCES[0]
    expected = tokenizer(text, truncation=True, max_length=8)["input_ids"]
    assert model.preprocess(text)["input_ids"].tolist() == expected
    strict = TranslationPreprocess({name: (folder / name).read_bytes() for name in FILES}, 8, "raise")
    with pytest.raises(TextTooLongError, match="max_length=8"):
        strict(text)


def test_tokenizer_comes_back(model: PretrainedModel, tmp_path: Path) -> None:
    saved = model.preprocess.save(tmp_path)
    again = TranslationPreprocess.from_json(model.preprocess.to_json(), tmp_path)
    assert (tmp_path / saved["file"]).is_file()
    assert again.to_json() == model.preprocess.to_json()
    assert again(SENTENCES[0])["input_ids"].tolist() == model.preprocess(SENTENCES[0])["input_ids"].tolist()
    twin = copy.deepcopy(model.preprocess)
    assert twin(TEXTS[0])["input_ids"].tolist() == model.preprocess(TEXTS[0])["input_ids"].tolist()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("source.spm", b""),
        ("target.spm", b"\x00\xff no model"),
        ("target.spm", 1000),
        ("vocab.json", b"{"),
        ("vocab.json", b'{"a": 1}'),
        ("vocab.json", b'{"</s>": 0, "<unk>": "1", "<pad>": 2}'),
        ("vocab.json", b"[1]"),
    ],
)
def test_damaged_tokenizer_files(folder: Path, name: str, content: bytes | int) -> None:
    files = {file: (folder / file).read_bytes() for file in FILES}
    files[name] = files[name][:content] if isinstance(content, int) else content
    with pytest.raises(DamagedFileError, match=name):
        TranslationPreprocess(files, 8)


def test_a_model_without_its_tokenizer(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "pytorch_model.bin", "vocab.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert load_pretrained_model("marian", weights=tmp_path, device="cpu").preprocess is None


def test_two_vocabularies_are_refused(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "share_encoder_decoder_embeddings": False}))
    (tmp_path / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes())
    with pytest.raises(WeightsMismatchError, match="two vocabularies"):
        load_pretrained_model("marian", weights=tmp_path, device="cpu")


@pytest.mark.parametrize("key", ["pad_token_id", "eos_token_id", "decoder_start_token_id"])
def test_tokens_outside_the_vocabulary(folder: Path, tmp_path: Path, key: str) -> None:
    content = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, key: 10**6}))
    (tmp_path / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes())
    with pytest.raises(DamagedFileError, match="1000000"):
        load_pretrained_model("marian", weights=tmp_path, device="cpu")


def test_a_step_lowers_the_loss(model: PretrainedModel) -> None:
    tuned = copy.deepcopy(model)
    inputs, targets = inputs_of(tuned), tuned.preprocess.encode_targets(["der hund", "ein tag", "regen"])
    optimizer = torch.optim.SGD(tuned.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        loss = tuned.head.losses(tuned.features(inputs), inputs, targets)["next_token"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]
    assert torch.equal(tuned.trunk.encoder.embed_positions.weight, model.trunk.encoder.embed_positions.weight)
