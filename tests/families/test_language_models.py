"""What the three families of language models share: tuners, freezing, saving, generation of tuned models, bad files."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.families.language_checkpoints import SENTENCES, write_gpt2, write_marian, write_t5
from transformers.pytorch_utils import Conv1D

from neurenix.data import ListDataset, TextDataset
from neurenix.errors import ConfigurationError, DamagedFileError, WeightsMismatchError
from neurenix.models import PretrainedModel, layer_names, match_layers
from neurenix.models.nlp import generate
from neurenix.models.nlp._generation import GenerationSettings
from neurenix.transfer import (
    AdapterTuner,
    Finetuner,
    IA3Tuner,
    LoraTuner,
    PromptTuner,
    ScaleShiftTuner,
    load_pretrained_model,
    predict,
)

WRITERS: dict[str, Callable[..., Any]] = {"gpt2": write_gpt2, "t5-small": write_t5, "opus-mt-en-de": write_marian}
FILE = {"gpt2": "model.safetensors", "t5-small": "model.safetensors", "opus-mt-en-de": "pytorch_model.bin"}


@pytest.fixture(scope="module", params=WRITERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / request.param
    path.mkdir()
    WRITERS[request.param](path)
    return path


@pytest.fixture
def model(folder: Path) -> PretrainedModel:
    return load_pretrained_model(folder.name, weights=folder, device="cpu")


def batch(model: PretrainedModel) -> dict[str, torch.Tensor]:
    rows = [(model.preprocess(text), 0) for text in SENTENCES[:3]]
    return model.preprocess.wrap([(text, 0) for text in SENTENCES[:3]], False).collate(rows)[0]


def examples() -> TextDataset:
    return TextDataset(SENTENCES, [0, 1, 2] * 2)


@pytest.mark.parametrize("tuner", [LoraTuner, AdapterTuner, IA3Tuner, ScaleShiftTuner, PromptTuner])
def test_tuners_find_their_places_train_and_merge(model: PretrainedModel, tuner: Any) -> None:
    fitted = tuner(model, num_classes=3, precision="fp32")
    fitted.fit(examples(), epochs=1, batch_size=3, run=False)
    inputs = batch(fitted.model)
    before = fitted.model.eval()(inputs)
    assert before.shape == (3, 3)
    if tuner in (AdapterTuner, PromptTuner):
        return
    if tuner is ScaleShiftTuner and model.name == "t5-small":
        with pytest.raises(ConfigurationError, match="no place for a bias"):  # T5's norms have none
            fitted.merge(SENTENCES[:3])
        return
    fitted.merge(SENTENCES[:3])
    torch.testing.assert_close(fitted.model.eval()(inputs), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("adapter_type", ["houlsby", "pfeiffer", "parallel"])
def test_every_type_of_adapter(model: PretrainedModel, adapter_type: str) -> None:
    if adapter_type == "parallel" and model.name == "opus-mt-en-de":
        with pytest.raises(ConfigurationError, match="feed-forward"):  # it is no module of its own there
            AdapterTuner(model, num_classes=3, adapter_type=adapter_type)
        return
    tuner = AdapterTuner(model, num_classes=3, adapter_type=adapter_type)
    assert tuner.model(batch(tuner.model)).shape == (3, 3)


@pytest.mark.parametrize("prompt_init", ["vocabulary", "text"])
def test_prompts_from_words(model: PretrainedModel, prompt_init: str) -> None:
    words = "the dog" if prompt_init == "text" else None
    if model.name == "opus-mt-en-de":  # its tokenizer reads two languages
        with pytest.raises(ConfigurationError, match="prompt_init"):
            PromptTuner(model, num_classes=3, prompt_length=4, prompt_init=prompt_init, prompt_text=words)
        return
    tuner = PromptTuner(model, num_classes=3, prompt_length=4, prompt_init=prompt_init, prompt_text=words)
    prompts = next(value for name, value in tuner.model.named_parameters() if name.endswith("prompts"))
    stem = next(module for module in tuner.model.trunk.modules() if isinstance(module, torch.nn.Embedding))
    distances = (prompts[0].unsqueeze(1) - stem.weight.unsqueeze(0)).abs().amax(-1).amin(1)
    assert float(distances.detach().max()) == 0
    if prompt_init == "text":
        ids = model.preprocess.words("the dog")
        assert torch.equal(prompts[0, 0], stem.weight[ids[0]])


def test_freezing_by_stages(model: PretrainedModel) -> None:
    first = model.stages[0]
    tuner = Finetuner(model, num_classes=3, freeze_layers=[first], precision="fp32")
    shared = {name: value.clone() for name, value in tuner.model.named_parameters()}
    tuner.fit(examples(), epochs=1, batch_size=3, run=False)
    moved = {name for name, value in tuner.model.named_parameters() if not torch.equal(value, shared[name])}
    frozen = set(match_layers(model, first))
    assert not any(name.startswith(tuple(frozen)) for name in moved)
    assert {name for name in shared if not name.startswith(tuple(frozen))} - moved <= {"trunk.wpe.weight"}


def test_a_tuned_model_comes_back(model: PretrainedModel, tmp_path: Path) -> None:
    tuner = LoraTuner(model, num_classes=3, precision="fp32")
    tuner.fit(examples(), epochs=1, batch_size=3, run=False)
    tuner.save(tmp_path / "saved")
    again = LoraTuner.load(tmp_path / "saved", device="cpu")
    inputs = batch(model)
    assert torch.equal(again.model.eval()(inputs), tuner.model.eval()(inputs))
    texts = [again.model.preprocess(text)["input_ids"].tolist() for text in SENTENCES]
    assert texts == [model.preprocess(text)["input_ids"].tolist() for text in SENTENCES]


def test_conv1d_updates_are_those_of_peft(tmp_path: Path) -> None:
    """The update of a weight (inputs, outputs), by hand: x W + b + s x Aᵀ Bᵀ."""
    write_gpt2(tmp_path)
    base = load_pretrained_model("gpt2", weights=tmp_path, device="cpu")
    plain = {name: module for name, module in base.trunk.named_modules() if isinstance(module, Conv1D)}
    assert len(plain) == 8
    tuner = LoraTuner(copy.deepcopy(base), num_classes=3, start="gaussian", target_layers=["attention.qkv", "mlp"])
    layers = {name: module for name, module in tuner.model.trunk.named_modules() if hasattr(module, "lora_A")}
    assert {name.split(".")[-1] for name in layers} == {"c_attn", "c_fc", "c_proj"}
    for name, layer in layers.items():
        torch.nn.init.normal_(layer.lora_B["default"].weight)
        inputs = torch.randn(4, plain[name].nx)
        update = inputs @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T
        torch.testing.assert_close(layer(inputs), plain[name](inputs) + 2 * update, rtol=1e-4, atol=1e-3)
    tuner.save(tmp_path / "peft")
    assert json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["fan_in_fan_out"] is True
    back = LoraTuner.from_peft(tmp_path / "peft", copy.deepcopy(base), num_classes=3)
    assert torch.equal(back.model.embed(batch(base)), tuner.model.embed(batch(base)))


def test_generation_with_updates_of_the_language_model(model: PretrainedModel) -> None:
    """Token by token by the tuned model itself, and merged into the weights: the same tokens."""
    plain = model.head.generate(model.trunk, batch(model), SIX_TOKENS)
    tuner = LoraTuner(model, precision="fp32")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in tuner.model.modules():
            if hasattr(module, "lora_B"):
                torch.nn.init.normal_(module.lora_B["default"].weight, std=0.1)  # larger ones magnify rounding
    tuned = tuner.model.eval()
    rows = [tuned.head.generate(tuned.trunk, one(tuned, text), SIX_TOKENS)[0].tolist() for text in SENTENCES[:3]]
    assert rows == [greedy(tuned, text, len(row)) for text, row in zip(SENTENCES[:3], rows, strict=True)]
    assert rows != plain.tolist()
    tuner.merge(SENTENCES[:3])
    merged = tuner.model.eval()
    assert rows == [
        merged.head.generate(merged.trunk, one(merged, text), SIX_TOKENS)[0].tolist() for text in SENTENCES[:3]
    ]


SIX_TOKENS = GenerationSettings(max_new_tokens=6)


def one(model: PretrainedModel, text: str) -> dict[str, torch.Tensor]:
    return {name: value.unsqueeze(0) for name, value in model.preprocess(text).items()}


@torch.inference_mode()
def greedy(model: PretrainedModel, text: str, count: int) -> list[int]:
    """The likeliest token again and again, from the whole sequence each time; Marian's last one ends the sentence."""
    inputs, found, config = one(model, text), list[int](), model.head.config
    for place in range(count):
        if model.name == "gpt2":
            ids = torch.cat([inputs["input_ids"], torch.tensor([found], dtype=torch.int64)], 1)
            scores = model({"input_ids": ids})[0, -1]
        else:
            before = torch.tensor([[config.decoder_start_token_id, *found]])
            scores = model({**inputs, "decoder_input_ids": before})[0, -1]
        if model.name == "opus-mt-en-de":
            scores[config.pad_token_id] = -torch.inf
            if place == 5:
                scores[config.eos_token_id] = torch.inf
        found.append(int(scores.argmax()))
    return found


@pytest.mark.parametrize("tuner", [LoraTuner, Finetuner])
def test_language_models_are_tuned_to_texts(model: PretrainedModel, tuner: Any, tmp_path: Path) -> None:
    inputs = batch(model)
    targets = model.preprocess.encode_targets(SENTENCES[:3])
    samples = [{name: value[row] for name, value in inputs.items()} for row in range(3)]
    data = ListDataset(samples, [{"labels": row} for row in targets])
    before = model(inputs, {"labels": targets})["next_token"].item()
    fitted = tuner(model, learning_rate=0.001, precision="fp32")
    fitted.fit(data, epochs=20, batch_size=3, run=False)
    assert fitted.model.eval()(inputs, {"labels": targets})["next_token"].item() < before
    fitted.save(tmp_path)
    again = tuner.load(tmp_path, device="cpu").model.eval()
    assert torch.equal(again(inputs), fitted.model.eval()(inputs))
    assert again.head.embedding is again.trunk.get_submodule(model.stages[0])
    assert generate(again, SENTENCES[0], max_new_tokens=5) == generate(fitted.model, SENTENCES[0], max_new_tokens=5)


def test_predict_answers_with_texts_and_scores(model: PretrainedModel) -> None:
    found = predict(model, SENTENCES[:2], precision="fp32")  # of random weights, a digit less is another word
    if model.name == "gpt2":
        assert [scores.shape[-1] for scores in found] == [267, 267]
        return
    most = min(64, model.head.longest - 1)
    assert found == generate(model, SENTENCES[:2], max_new_tokens=most)


def test_copies_and_saved_files_answer_alike(model: PretrainedModel, folder: Path, tmp_path: Path) -> None:
    inputs = batch(model)
    assert torch.equal(copy.deepcopy(model)(inputs), model(inputs))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "own.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    again = load_pretrained_model(folder.name, weights=tmp_path / "own.safetensors", device="cpu")
    assert {fate.fate for fate in again.load_report.tensors} == {"matched"}
    assert torch.equal(again(inputs), model(inputs))
    assert generate(copy.deepcopy(model), SENTENCES[0], max_new_tokens=9) == generate(
        model, SENTENCES[0], max_new_tokens=9
    )


def test_names_of_layers_are_the_library_s(model: PretrainedModel) -> None:
    names = layer_names(model)
    expected = {
        "gpt2": {"wte", "h.1.attn.c_attn", "ln_f", "lm_head"},
        "t5-small": {"shared", "encoder.block.1", "decoder.block.1", "decoder.final_layer_norm"},
        "opus-mt-en-de": {"shared", "encoder.layers.1.fc1", "decoder.layers.1.encoder_attn"},
    }[model.name]
    assert expected <= set(names)


def test_damaged_and_foreign_files_are_named(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "vocab.json", "tokenizer.json"):
        if (folder / name).is_file():
            (tmp_path / name).write_bytes((folder / name).read_bytes())
    file = tmp_path / FILE[folder.name]
    content = (folder / file.name).read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedFileError):
        load_pretrained_model(folder.name, weights=tmp_path, device="cpu")
    file.unlink()
    safe = file.suffix == ".safetensors"
    state = load_file(folder / file.name) if safe else torch.load(folder / file.name, weights_only=True)
    for wrong in (_swapped(state), {name: value[..., :1] for name, value in state.items()}):
        save_file({name: value.clone().contiguous() for name, value in wrong.items()}, tmp_path / "model.safetensors")
        with warnings.catch_warnings(), pytest.raises(WeightsMismatchError, match="would be pretrained"):
            load_pretrained_model(folder.name, weights=tmp_path / "model.safetensors", device="cpu")


def _swapped(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under each other's names, from the first to the last."""
    return dict(zip(state, reversed(list(state.values())), strict=True))
