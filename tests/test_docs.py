"""Every code block of README and of the specification's chapters, run as it is printed.

Weights come from a hub on 127.0.0.1 through the library's own download code: random numbers in the real format.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from tests.doc_blocks import README, SPEC, Block, code_blocks
from tests.local_hub import local_hub, relaxed_records, write_random_checkpoint

import neurenix
from neurenix.data import ImageFolder
from neurenix.transfer import Finetuner, load_pretrained_model
from neurenix.transfer.strategies import STRATEGIES

SERVED = ("resnet50", "efficientnet-b7", "mobilenetv2", "bert-base-uncased")
CLASSES = [f"flower{number}" for number in range(10)]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("hub")
    with local_hub(folder) as server, relaxed_records():
        for name in SERVED:
            write_random_checkpoint(server, name)
        yield
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder of the blocks, with ./data/flowers in it: one picture per class and split."""
    folder = tmp_path_factory.mktemp("work")
    random = numpy.random.default_rng(0)
    for split in ("train", "val"):
        for name in CLASSES:
            target = folder / "data" / "flowers" / split / name
            target.mkdir(parents=True)
            small = random.integers(0, 256, (6, 6, 3), dtype=numpy.uint8)
            Image.fromarray(small).resize((240, 200)).save(target / "one.jpg")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def vision_model(hub: None) -> Any:
    return load_pretrained_model("resnet50", weights="imagenet", include_top=False, device="cpu")


@pytest.fixture
def names(workplace: Path, vision_model: Any) -> dict[str, Any]:
    """What the text around the blocks takes as given."""
    train, val = (ImageFolder(workplace / "data" / "flowers" / split) for split in ("train", "val"))
    return {
        "neurenix": neurenix,
        "vision_model": vision_model,
        "model": vision_model,
        "train_dataset": train,
        "val_dataset": val,
        "num_classes": len(CLASSES),
        "input_data": torch.stack([vision_model.preprocess(train[place][0]) for place in (0, 1)]),
        "early_stopping": neurenix.callbacks.EarlyStopping(monitor="val_accuracy", patience=5, mode="max"),
        "model_checkpoint": neurenix.callbacks.ModelCheckpoint("./best", monitor="val_accuracy", save_best_only=True),
    }


def spec_block(section: str, number: int = 0) -> Block:
    return code_blocks(SPEC, section=section)[number]


def test_loading(hub: None, workplace: Path) -> None:
    made = spec_block("Pre-trained Model Loading").run({})
    assert made["vision_model"](torch.zeros(1, 3, 224, 224)).shape == (1, 2048)
    assert made["vision_model"].load_report.pretrained_share == 1.0
    tokens = made["nlp_model"].preprocess("a good film")
    assert made["nlp_model"]({name: ids[None] for name, ids in tokens.items()}).ndim == 2


def test_feature_extraction(names: dict[str, Any], workplace: Path) -> None:
    made = spec_block("Feature Extraction").run(names)
    assert made["features"].shape == (2, 256 + 512 + 1024)
    torch.testing.assert_close(made["features"][:, :256].norm(dim=1), torch.ones(2))
    assert list((workplace / "feature_cache").rglob("*.safetensors"))


def test_fine_tuning(names: dict[str, Any], workplace: Path) -> None:
    made = spec_block("Fine-tuning").run(names)
    history = made["finetuner"].history
    assert len(history) >= 5 and history["loss"][-1] < history["loss"][0]
    rows = {row.name: row for row in made["finetuner"].summary().rows}
    assert rows["layer1"].trainable == 0 < rows["layer2"].trainable
    assert Finetuner.load(workplace / "best").evaluate(names["val_dataset"])["accuracy"] >= 0


@pytest.mark.parametrize(
    ("number", "choice", "name"),
    [
        (0, {"task_type": "image_classification"}, "resnet50"),
        (0, {"task_type": "text_classification"}, "bert-base-uncased"),
        (1, {"resources": "limited"}, "mobilenetv2"),
        (1, {"resources": "abundant"}, "efficientnet-b7"),
    ],
)
def test_choosing_a_model(hub: None, number: int, choice: dict[str, str], name: str) -> None:
    made = spec_block("Choosing the Right Pre-trained Model", number).run({"neurenix": neurenix, **choice})
    assert made["model"].name == name and made["model"].load_report.pretrained_share == 1.0


@pytest.mark.parametrize(("size", "frozen"), [("very_small", None), ("moderate", 3), ("large", 0)])
def test_choosing_an_approach(names: dict[str, Any], size: str, frozen: int | None) -> None:
    made = spec_block("Choosing the Right Pre-trained Model", 2).run({**names, "data_size": size})
    if frozen is None:
        assert made["features"].shape == (2, 2048)
    else:
        rows = {row.name: row.trainable for row in made["finetuner"].summary().rows}
        assert [rows[name] for name in ("conv1", "layer1", "layer2")].count(0) == frozen


def test_progressive_unfreezing(names: dict[str, Any]) -> None:
    made = spec_block("Fine-tuning Strategies", 0).run(names)
    assert len(made["finetuner"].history) == 15
    assert made["finetuner"].summary().trainable == made["finetuner"].summary().parameters
    head = made["finetuner"].model.head.weight
    assert made["finetuner"].optimizer.state[head]["step"] == 15


def test_discriminative_learning_rates(names: dict[str, Any]) -> None:
    made = spec_block("Fine-tuning Strategies", 1).run(names)
    rates = {group["name"]: group["base_lr"] for group in made["finetuner"].optimizer.param_groups}
    assert (rates["conv1"], rates["layer3"], rates["fc"]) == (1e-5, 3e-4, 1e-3)
    assert len(made["finetuner"].history) == 10


def test_image_classification_tutorial(hub: None, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = spec_block("Image Classification with Transfer Learning").run({})
    printed = capsys.readouterr().out
    assert "Test accuracy: " in printed and "Test top-5 accuracy: " in printed
    again = Finetuner.load(workplace / "checkpoints" / "resnet50_flowers")
    assert again.model.categories == tuple(CLASSES)
    assert made["metrics"]["top5_accuracy"] >= made["metrics"]["accuracy"]


@pytest.mark.real_weights
@pytest.mark.parametrize("block", code_blocks(README), ids=str)
def test_readme(block: Block, workplace: Path) -> None:
    block.run({})


def test_readme_names_every_strategy() -> None:
    text = README.read_text()
    assert [name for name in STRATEGIES if f"| `{name}` |" not in text] == []
