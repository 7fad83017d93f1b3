"""T5 and FLAN-T5: the library's own classes on the same files are the independent implementation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.families.language_checkpoints import SENTENCES, write_t5

from neurenix.errors import ConfigurationError, InputMismatchError
from neurenix.models import ARCHITECTURES, BuildOptions, PretrainedModel
from neurenix.models.nlp import generate
from neurenix.models.nlp._generation import GenerationSettings
from neurenix.transfer import load_pretrained_model

NAMES = {True: "t5-small", False: "flan-t5-small"}
TEXTS = ["the dog and the cat", "a man loves"]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "own output"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PretrainedModel, Any, Path]:
    """Our model, the library's on the same numbers, and their folder."""
    folder = tmp_path_factory.mktemp("t5")
    library = write_t5(folder, tied=request.param)
    return load_pretrained_model(NAMES[request.param], weights=folder, device="cpu"), library, folder


def inputs_of(model: PretrainedModel) -> dict[str, torch.Tensor]:
    samples = [(model.preprocess(text), 0) for text in TEXTS]
    return model.preprocess.wrap([(text, 0) for text in TEXTS], False).collate(samples)[0]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("t5-small", 60_506_624),
        ("t5-base", 222_903_552),
        ("flan-t5-small", 76_961_152),
        ("flan-t5-base", 247_577_856),
    ],
)
def test_published_sizes(name: str, parameters: int) -> None:
    with torch.device("meta"):
        parts = ARCHITECTURES[name].build(BuildOptions(num_classes=32128))
    counted = [*parts.trunk.parameters(), *parts.head.parameters()]
    assert sum(parameter.numel() for parameter in counted) == parameters


def test_everything_in_the_file_is_used(pair: tuple[PretrainedModel, Any, Path]) -> None:
    model, _, folder = pair
    stored = set(load_file(folder / "model.safetensors"))
    extra = {"trunk.encoder.embed_tokens.weight", "head.decoder.embed_tokens.weight"}  # the embedding once more
    assert {fate.fate for fate in model.load_report.tensors} <= {"matched", "dropped"}
    assert set(model.load_report.names("dropped")) == (extra if "encoder.embed_tokens.weight" in stored else set())
    ours = {name.partition(".")[2] for name in model.state_dict()}
    assert ours == {name for name in stored if "embed_tokens" not in name}


@torch.inference_mode()
def test_features_and_scores_equal_the_library_bit_by_bit(pair: tuple[PretrainedModel, Any, Path]) -> None:
    model, library, folder = pair
    inputs = inputs_of(model)
    encoder = transformers.T5EncoderModel.from_pretrained(folder, local_files_only=True).eval()
    assert torch.equal(model.features(inputs), encoder(**inputs).last_hidden_state)
    before = torch.tensor([[0, 7, 8, 9], [0, 5, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    given = {**inputs, "decoder_input_ids": before}
    assert torch.equal(model(given), library(**given, use_cache=False).logits)
    given["decoder_attention_mask"] = mask
    assert torch.equal(model(given), library(**given, use_cache=False).logits)
    assert torch.equal(model(inputs), library(**inputs, decoder_input_ids=torch.zeros(2, 1, dtype=torch.int64)).logits)


def test_loss_equals_the_library(pair: tuple[PretrainedModel, Any, Path]) -> None:
    model, library, _ = pair
    inputs, targets = inputs_of(model), model.preprocess.encode_targets(["the film", "a dog and a cat"])
    assert (targets == -100).any() and (targets[:, -1] != -100).any()
    found = model.head.losses(model.features(inputs), inputs, targets)["next_token"]
    expected = library(**inputs, labels=targets, use_cache=False).loss  # a cache changes the last bits
    assert torch.equal(found, expected)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_equals_the_library(pair: tuple[PretrainedModel, Any, Path], num_beams: int) -> None:
    model, library, folder = pair
    tokenizer = transformers.T5Tokenizer.from_pretrained(folder, local_files_only=True)
    given = tokenizer(TEXTS, return_tensors="pt", padding=True)
    assert torch.equal(given["input_ids"], inputs_of(model)["input_ids"])
    found = library.generate(**given, max_new_tokens=6, num_beams=num_beams, do_sample=False)
    expected = tokenizer.batch_decode(found, skip_special_tokens=True)
    assert generate(model, TEXTS, max_new_tokens=6, num_beams=num_beams) == expected
    ours = model.head.generate(model.trunk, inputs_of(model), GenerationSettings(max_new_tokens=6, num_beams=num_beams))
    assert torch.equal(ours, found[:, 1:])


def test_the_embedding_is_one_parameter_everywhere(pair: tuple[PretrainedModel, Any, Path], tmp_path: Path) -> None:
    model = pair[0]
    twin = copy.deepcopy(model)
    for network in (model, twin):
        shared = network.trunk.shared.weight
        assert network.head.embedding.weight is shared is network.head.decoder.embed_tokens.weight
        assert (network.head.output_weight() is shared) == (network.head.lm_head is None)
        assert [name for name, value in network.named_parameters(remove_duplicate=False) if value is shared] == [
            "trunk.shared.weight"
        ]
    assert twin.trunk.shared.weight is not model.trunk.shared.weight
    with torch.no_grad():
        twin.trunk.shared.weight.add_(1)
    inputs = inputs_of(model)
    assert not torch.equal(twin(inputs), model(inputs))
    assert twin.double().head.embedding.weight.dtype == torch.float64
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "saved.safetensors")
    (tmp_path / "config.json").write_bytes((pair[2] / "config.json").read_bytes())
    again = load_pretrained_model(model.name, weights=tmp_path / "saved.safetensors", device="cpu")
    assert {fate.fate for fate in again.load_report.tensors} == {"matched"}
    assert torch.equal(again(inputs), model(inputs))


@pytest.mark.parametrize("alias", ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"])
def test_embedding_under_another_name(pair: tuple[PretrainedModel, Any, Path], tmp_path: Path, alias: str) -> None:
    model, _, folder = pair
    state = {name: value for name, value in load_file(folder / "model.safetensors").items() if "embed_" not in name}
    state[alias] = state.pop("shared.weight")
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    again = load_pretrained_model(model.name, weights=tmp_path, device="cpu")
    assert {fate.fate for fate in again.load_report.tensors} == {"matched"}
    assert torch.equal(again(inputs_of(model)), model(inputs_of(model)))


def test_an_encoder_alone(pair: tuple[PretrainedModel, Any, Path], tmp_path: Path) -> None:
    model, _, folder = pair
    whole = load_file(folder / "model.safetensors")
    state = {name: value for name, value in whole.items() if name.startswith(("shared", "encoder.block", "encoder.fi"))}
    save_file(state, tmp_path / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    encoder = load_pretrained_model(model.name, weights=tmp_path, device="cpu")
    assert {fate.fate for fate in encoder.load_report.tensors} == {"matched"}
    assert torch.equal(encoder(inputs_of(model)), model.embed(inputs_of(model)))
    with pytest.raises(ConfigurationError, match="no head that generates"):
        generate(encoder, "the dog")
    without = load_pretrained_model(model.name, weights=folder, include_top=False, device="cpu")
    assert torch.equal(without(inputs_of(model)), model.embed(inputs_of(model)))


def test_a_step_lowers_the_loss(pair: tuple[PretrainedModel, Any, Path]) -> None:
    model = copy.deepcopy(pair[0])
    inputs, targets = inputs_of(model), model.preprocess.encode_targets(["the film", "a dog and a cat"])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    losses = []
    for _ in range(3):
        loss = model.head.losses(model.features(inputs), inputs, targets)["next_token"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]


def test_tokens_equal_the_library(pair: tuple[PretrainedModel, Any, Path]) -> None:
    model, _, folder = pair
    tokenizer = transformers.T5Tokenizer.from_pretrained(folder, local_files_only=True)
    for text in [*SENTENCES, "", "größe"]:
        found = model.preprocess(text)["input_ids"].tolist()
        assert found == tokenizer(text)["input_ids"]
        assert model.preprocess.decode(found) == tokenizer.decode(found, skip_special_tokens=True)
    assert (model.preprocess.pad_token, model.preprocess.pad_id) == ("<pad>", 0)


def test_wrong_targets_are_named(pair: tuple[PretrainedModel, Any, Path]) -> None:
    model = pair[0]
    inputs = inputs_of(model)
    with pytest.raises(InputMismatchError, match="another model"):
        model.head.losses(model.features(inputs), inputs, torch.full((2, 2), 10**6))
    with pytest.raises(InputMismatchError, match="2 texts"):
        model({**inputs, "decoder_input_ids": torch.zeros(3, 1, dtype=torch.int64)})
