"""GPT-2: the library's own classes on the same files are the independent implementation."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.families.language_checkpoints import SENTENCES, write_byte_pairs, write_gpt2

from neurenix.errors import ConfigurationError, DamagedFileError, InputMismatchError
from neurenix.models import ARCHITECTURES, BuildOptions, PretrainedModel
from neurenix.models.nlp import generate
from neurenix.models.nlp.gpt2 import GPT2Sizes, read_sizes
from neurenix.text import TextPreprocess
from neurenix.transfer import PromptTuner, load_pretrained_model

TEXTS = ["the dog and", "a man loves the old film", "rain"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpt2")
    write_gpt2(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> PretrainedModel:
    return load_pretrained_model("gpt2", weights=folder, device="cpu")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return write_gpt2(tmp_path_factory.mktemp("library"))


def batch(model: PretrainedModel, texts: list[str] = TEXTS) -> dict[str, torch.Tensor]:
    """The texts padded behind, as a dataset of them gives batches."""
    samples = [(model.preprocess(text), 0) for text in texts]
    return model.preprocess.wrap([(text, 0) for text in texts], False).collate(samples)[0]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080), ("distilgpt2", 81_912_576)],
)
def test_published_sizes(name: str, parameters: int) -> None:
    with torch.device("meta"):
        parts = ARCHITECTURES[name].build(BuildOptions(num_classes=50257))
    counted = [*parts.trunk.parameters(), *parts.head.parameters()]
    assert sum(parameter.numel() for parameter in counted) == parameters
    assert parts.head.num_outputs == 50257


def test_everything_in_the_file_is_used(model: PretrainedModel, folder: Path) -> None:
    assert {fate.fate for fate in model.load_report.tensors} == {"matched", "dropped"}
    assert model.load_report.names("dropped") == ["trunk.h.0.attn.bias", "trunk.h.1.attn.bias"]  # masks, not weights
    names = {name.removeprefix("trunk.") for name in model.state_dict()}
    assert names == {name for name in load_file(folder / "model.safetensors") if not name.endswith(".attn.bias")}
    assert model.stages == ("wte", "wpe", "h.0", "h.1", "ln_f")


@torch.inference_mode()
def test_features_and_scores_equal_the_library_bit_by_bit(model: PretrainedModel, library: Any) -> None:
    inputs = batch(model)
    assert inputs["attention_mask"].sum(1).tolist() == [len(model.preprocess(text)["input_ids"]) for text in TEXTS]
    assert torch.equal(model.features(inputs), library.transformer(**inputs).last_hidden_state)
    assert torch.equal(model(inputs), library(**inputs).logits)
    alone = {"input_ids": inputs["input_ids"][1:2]}
    assert torch.equal(model(alone), library(**alone).logits)


@torch.inference_mode()
def test_padding_changes_nothing_and_the_last_word_is_pooled(model: PretrainedModel) -> None:
    pooled = model.embed(batch(model))
    for text, row in zip(TEXTS, pooled, strict=True):
        alone = batch(model, [text])
        torch.testing.assert_close(model.embed(alone)[0], row)
        torch.testing.assert_close(model.features(alone)[0, -1], row)


def test_loss_equals_the_library(model: PretrainedModel, library: Any) -> None:
    inputs = batch(model)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    library.loss_type = "ForCausalLM"  # what it takes anyway, with a warning
    expected = library(**inputs, labels=labels).loss
    features = model.features(inputs)
    assert torch.equal(model.head.losses(features, inputs, inputs["input_ids"])["next_token"], expected)
    assert torch.equal(model.head.losses(features, inputs, None)["next_token"], expected)
    assert torch.equal(model.head.losses(features, inputs, labels.clamp(min=-1))["next_token"], expected)
    nothing = torch.full_like(labels, -1)
    assert model.head.losses(features, inputs, nothing)["next_token"].item() == 0


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_equals_the_library(model: PretrainedModel, library: Any, folder: Path, num_beams: int) -> None:
    tokenizer = transformers.GPT2Tokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.pad_token, tokenizer.padding_side = "<|endoftext|>", "left"
    given = tokenizer(TEXTS, return_tensors="pt", padding=True)
    found = library.generate(**given, max_new_tokens=7, num_beams=num_beams, do_sample=False, pad_token_id=266)
    expected = tokenizer.batch_decode(found[:, given["input_ids"].shape[1] :], skip_special_tokens=True)
    assert generate(model, TEXTS, max_new_tokens=7, num_beams=num_beams) == expected
    assert any(expected)


def test_generation_leaves_model_and_random_numbers_alone(model: PretrainedModel) -> None:
    model.train()
    state, before = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    drawn = [generate(model, TEXTS[0], max_new_tokens=8, temperature=2.0, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    model.eval()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_wrong_requests_are_named(model: PretrainedModel, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="64 positions"):
        generate(model, "the dog", max_new_tokens=64)
    with pytest.raises(ConfigurationError, match="num_beams=0"):
        generate(model, "the dog", num_beams=0)
    with pytest.raises(ConfigurationError, match="one of the two"):
        generate(model, "the dog", num_beams=2, temperature=1.0)
    with pytest.raises(ConfigurationError, match="include_top=True"):
        generate(load_pretrained_model("gpt2", weights=folder, include_top=False, device="cpu"), "the dog")
    with pytest.raises(ConfigurationError, match="num_classes to a tuner"):
        model.head.for_classes(3)
    with pytest.raises(InputMismatchError, match="encode_targets"):
        model.head.losses(torch.zeros(1, 2, 16), {"input_ids": torch.zeros(1, 2, dtype=torch.int64)}, torch.zeros(1, 2))
    with pytest.raises(InputMismatchError, match="model.preprocess"):
        model(torch.zeros(1, 2))


def test_generation_with_prompts_is_refused(model: PretrainedModel) -> None:
    tuned = PromptTuner(copy.deepcopy(model), prompt_length=2).model
    with pytest.raises(ConfigurationError, match="learned prompts"):
        generate(tuned, TEXTS, max_new_tokens=2)


def test_tokens_equal_the_library(folder: Path) -> None:
    library = transformers.GPT2Tokenizer.from_pretrained(folder, local_files_only=True)
    ours = TextPreprocess(folder, 128)
    for text in [*SENTENCES, "Ein  Wort\n", "größer 东京 🙂", "the end<|endoftext|>the start"]:
        assert ours(text)["input_ids"].tolist() == library(text)["input_ids"]
        assert ours.decode(library(text)["input_ids"]) == library.decode(library(text)["input_ids"]).replace(
            "<|endoftext|>", ""
        )
    assert (ours.pad_token, ours.pad_id) == ("<|endoftext|>", 266)
    assert ours("")["input_ids"].tolist() == [266]  # what ends a text also begins one
    assert ours.encode_targets(["the dog", "a"]).tolist()[1][1:] == [-100]


def test_head_with_weights_of_its_own(folder: Path, tmp_path: Path) -> None:
    state = {f"transformer.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    state["lm_head.weight"] = torch.randn(267, 16, generator=torch.Generator().manual_seed(3))
    save_file(state, tmp_path / "own.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps({**json.loads((folder / "config.json").read_text()), "tie_word_embeddings": False})
    )
    model = load_pretrained_model("gpt2", weights=tmp_path / "own.safetensors", device="cpu")
    assert "head.weight" in model.load_report.names("matched")
    features = torch.randn(1, 3, 16)
    assert torch.equal(model.head(features, None), features @ state["lm_head.weight"].T)


@pytest.mark.parametrize("kept", ["both", "head alone"])
def test_embedding_stored_under_the_name_of_the_head(folder: Path, tmp_path: Path, kept: str) -> None:
    state = load_file(folder / "model.safetensors")
    state["lm_head.weight"] = state["wte.weight"].clone()
    if kept == "head alone":
        del state["wte.weight"]
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    model = load_pretrained_model("gpt2", weights=tmp_path, device="cpu")
    assert model.load_report.pretrained_share == 1
    assert torch.equal(model.trunk.wte.weight, state.get("wte.weight", state["lm_head.weight"]))
    assert model.head.weight is None


def test_a_step_lowers_the_loss(folder: Path) -> None:
    model = load_pretrained_model("gpt2", weights=folder, device="cpu")
    inputs = batch(model)
    losses = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        loss = model.head.losses(model.features(inputs), inputs, None)["next_token"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]
    assert math.isfinite(losses[2])


@pytest.mark.parametrize(
    "values", [{"n_embd": 7}, {"n_layer": 10**6}, {"n_head": 0}, {"n_inner": "wide"}, {"attn_pdrop": 2.0}]
)
def test_impossible_sizes(tmp_path: Path, values: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", **values}))
    with pytest.raises(DamagedFileError):
        read_sizes(str(tmp_path), published=GPT2Sizes(), model_type="gpt2")


def test_sizes_under_their_other_names_and_nothing_else(tmp_path: Path) -> None:
    content = {"hidden_size": 32, "num_hidden_layers": 1, "auto_map": {"AutoModel": "evil.Model"}, "n_head": 4}
    (tmp_path / "config.json").write_text(json.dumps(content))
    found = read_sizes(str(tmp_path), published=GPT2Sizes(), model_type="gpt2")
    assert found == GPT2Sizes(n_embd=32, n_layer=1, n_head=4)


def test_byte_pairs_need_no_special_token(tmp_path: Path) -> None:
    write_byte_pairs(tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    del vocabulary["<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    assert TextPreprocess(tmp_path, 32)("the <|endoftext|>")["attention_mask"].all()
