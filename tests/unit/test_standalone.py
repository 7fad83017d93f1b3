"""A standalone save holds all that its model needs, also where a file or its config.json decided the sizes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.local_hub import write_text_checkpoint
from torch import Tensor

from neurenix.errors import ConfigurationError
from neurenix.transfer import AdapterTuner, Finetuner, load_pretrained_model


def texts() -> dict[str, Tensor]:
    ids = torch.randint(5, 100, (2, 9), generator=torch.Generator().manual_seed(4))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def answers(tuner: Any, inputs: Any) -> Tensor:
    with torch.inference_mode():
        return tuner.model.eval()(inputs)


@pytest.mark.parametrize("tuner_class", [Finetuner, AdapterTuner])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_sizes_of_a_configuration_travel_along(tmp_path: Path, kind: str, tuner_class: Any) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    write_text_checkpoint(checkpoint, kind)  # two layers of 32 features
    name = "bert-base-uncased" if kind == "bert" else "roberta-base"
    tuner = tuner_class(load_pretrained_model(name, weights=checkpoint, device="cpu"), num_classes=2)
    tuner.save(tmp_path / "saved", standalone=True)
    for file in checkpoint.iterdir():
        file.unlink()
    again = tuner_class.load(tmp_path / "saved", device="cpu")
    assert torch.equal(answers(again, texts()), answers(tuner, texts()))
    assert again.model.preprocess("a b")["input_ids"].tolist() == tuner.model.preprocess("a b")["input_ids"].tolist()
    again.save(tmp_path / "copy", standalone=True)
    shutil.rmtree(tmp_path / "saved")
    assert torch.equal(answers(tuner_class.load(tmp_path / "copy", device="cpu"), texts()), answers(tuner, texts()))


def test_the_outputs_of_a_files_own_head_travel_along(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    random = load_pretrained_model("resnet18", weights=None, input_shape=(32, 32, 3), device="cpu")
    state = {name.removeprefix("trunk."): tensor for name, tensor in random.state_dict().items() if "head" not in name}
    state |= {"fc.weight": torch.rand(7, 512), "fc.bias": torch.rand(7)}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "seven.safetensors")
    model = load_pretrained_model(
        "resnet18", weights=tmp_path / "seven.safetensors", input_shape=(32, 32, 3), device="cpu"
    )
    tuner = Finetuner(model)
    assert tuner.num_outputs == 7
    tuner.save(tmp_path / "saved", standalone=True)
    (tmp_path / "seven.safetensors").unlink()
    again = Finetuner.load(tmp_path / "saved", device="cpu")
    assert torch.equal(answers(again, images), answers(tuner, images))


@pytest.mark.parametrize("name", ["yolox-nano", "fasterrcnn_mobilenet_v3_large_320_fpn", "retinanet_resnet50_fpn"])
def test_a_detectors_size_and_thresholds_travel_along(tmp_path: Path, name: str) -> None:
    model = load_pretrained_model(name, weights=None, input_shape=(96, 128, 3), device="cpu")
    assert set(model.preprocess.spec.size) == {96, 128}
    tuner = Finetuner(model, num_classes=2)
    tuner.model.head.score_threshold, tuner.model.head.overlap_threshold = 0.25, 0.4
    tuner.save(tmp_path / "saved")
    again = Finetuner.load(tmp_path / "saved", device="cpu")
    assert (again.model.head.score_threshold, again.model.head.overlap_threshold) == (0.25, 0.4)
    assert again.model.preprocess.spec == model.preprocess.spec


def test_a_segmenters_size() -> None:
    model = load_pretrained_model("unet-brain-mri", weights=None, input_shape=(64, 96, 3), device="cpu")
    assert model.preprocess.spec.size == model.preprocess.spec.crop == (64, 96)
    for wrong, message in (((64, 96, 1), "reads 3"), ((3, 64, 96), "channels first"), ((64,), "height, width")):
        with pytest.raises(ConfigurationError, match=message):
            load_pretrained_model("unet-brain-mri", weights=None, input_shape=wrong, device="cpu")
    with pytest.raises(ConfigurationError, match="multiples of 32"):
        load_pretrained_model("yolox-nano", weights=None, input_shape=(100, 128, 3), device="cpu")
