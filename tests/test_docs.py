"""Every code block of README.md, and of the specification's sections that are built, run as it is printed.

The specification's models come from a hub on 127.0.0.1: random weights in the published files' format, downloaded
by the library's own code into empty caches. What the blocks take from the text around them (a data set, a number of
classes) is given by a namespace; what they claim is asserted afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from tests.doc_blocks import README, SPEC, Block, code_blocks
from tests.local_hub import LocalHub, local_hub, relaxed_records, write_random_checkpoint

import neurenix
from neurenix.callbacks import EarlyStopping, ModelCheckpoint
from neurenix.data import ArrayDataset
from neurenix.storage import tensor_digest
from neurenix.transfer import Finetuner, list_models, load_pretrained_model
from neurenix.transfer.strategies import STRATEGIES

SPEC_SHA256 = "18d4dd795e465af68e02ca9a462533dc92ca24f18327b137d3b7a3084efb236d"
FLOWERS = ("daisy", "iris", "poppy", "rose", "tulip", "violet")
Serve = Callable[..., LocalHub]
pytestmark = pytest.mark.filterwarnings("ignore:the images are 96 x 96")  # small, so that the blocks are quick


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """serve("resnet50") puts random weights on the hub, once, and returns the hub."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="neurenix-hub-")))
        hub = stack.enter_context(local_hub(folder))
        stack.enter_context(relaxed_records())
        served: set[str] = set()

        def serve(*architectures: str) -> LocalHub:
            for name in architectures:
                if name not in served:
                    write_random_checkpoint(hub, name, weights="imagenet" if "bert" not in name else None)
                    served.add(name)
            return hub

        yield serve


@pytest.fixture(scope="module")
def resnet(serve: Serve) -> torch.nn.Module:
    """What the specification calls vision_model, to be copied by those who change it."""
    serve("resnet50")
    return load_pretrained_model(
        "resnet50", domain="vision", weights="imagenet", include_top=False, pooling="avg", device="cpu"
    )


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that `./data` and `./checkpoints` are the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def images(count: int, *, seed: int = 0) -> torch.Tensor:
    """(count, 3, 96, 96) as ImageNet's normalisation leaves uint8 noise; ResNets read images of any size."""
    random = numpy.random.default_rng(seed)
    pixels = torch.from_numpy(random.integers(0, 256, (count, 3, 96, 96))).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels - mean[:, None, None]) / std[:, None, None]


def labelled(count: int, classes: int = 3) -> ArrayDataset:
    return ArrayDataset(images(count), numpy.arange(count) % classes)


def lay_flowers(root: Path, *, train: int, validation: int) -> None:
    """JPEG files where the tutorial looks for them; each class has a colour of its own."""
    random = numpy.random.default_rng(0)
    for split, count in (("train", train), ("val", validation)):
        for number, name in enumerate(FLOWERS):
            folder = root / "data" / "flowers" / split / name
            folder.mkdir(parents=True)
            for image in range(count):
                noise = random.integers(0, 100, (48, 64, 3)).astype("uint8")
                noise[..., number % 3] += 50 + 100 * (number // 3)
                Image.fromarray(noise).save(folder / f"{image}.jpg")


def the_block(section: str, number: int = 0) -> Block:
    return code_blocks(SPEC, section=section)[number]


def run(block: Block, **names: Any) -> dict[str, Any]:
    """Run a block with `neurenix` and these names, as someone would who had read the text before it."""
    return block.run({"neurenix": neurenix, **names})


def changed(model: torch.nn.Module, before: torch.nn.Module) -> set[str]:
    """First part of the name of every layer with a parameter that differs between two models' trunks."""
    old = before.trunk.state_dict()
    parameters = dict(model.trunk.named_parameters())
    return {
        name.split(".")[0] for name, tensor in parameters.items() if tensor_digest(tensor) != tensor_digest(old[name])
    }


# --- the specification -------------------------------------------------------------------------------------------


def test_the_specification_is_as_the_user_wrote_it():
    text = SPEC.read_text(encoding="utf-8").partition("-->\n\n")[2]
    assert hashlib.sha256(text.encode()).hexdigest() == SPEC_SHA256


def test_every_block_of_the_specification_has_a_test():
    tested = {
        ("Pre-trained Model Loading", 0),
        ("Feature Extraction", 0),
        ("Fine-tuning", 0),
        ("Parameter-Efficient Fine-tuning", 0),
        ("Choosing the Right Pre-trained Model", 0),
        ("Choosing the Right Pre-trained Model", 1),
        ("Choosing the Right Pre-trained Model", 2),
        ("Fine-tuning Strategies", 0),
        ("Fine-tuning Strategies", 1),
        ("Image Classification with Transfer Learning", 0),
    }
    assert {(block.section, block.number) for block in code_blocks(SPEC)} == tested


def test_loading(serve):
    hub = serve("resnet50", "bert-base-uncased")
    names = run(the_block("Pre-trained Model Loading"))
    fetched = [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]
    assert any("resnet50" in path and path.endswith("model.safetensors") for path in fetched)
    assert any("bert-base-uncased" in path and path.endswith("tokenizer.json") for path in fetched)
    vision, nlp = names["vision_model"], names["nlp_model"]
    assert vision.load_report.pretrained_share == nlp.load_report.pretrained_share == 1.0
    with torch.no_grad():
        assert vision(images(1).to(next(vision.parameters()).device)).shape == (1, 2048)
    tokens = nlp.preprocess("the film is good")
    assert tokens["input_ids"].shape[-1] == 6  # [CLS], four words, [SEP]
    assert nlp.preprocess.max_length == 512


def test_feature_extraction(resnet, workplace):
    data = labelled(6)
    names = run(the_block("Feature Extraction"), vision_model=resnet, input_data=images(2), train_dataset=data)
    features, extractor = names["features"], names["feature_extractor"]
    assert features.shape == (2, 256 + 512 + 1024)
    for name, width in (("layer1", 256), ("layer2", 512), ("layer3", 1024)):
        part = features[:, extractor.columns[name]]
        assert part.shape[1] == width
        torch.testing.assert_close(part.norm(dim=1), torch.ones(2))  # normalize=True
    shards = list((workplace / "feature_cache").rglob("*.safetensors"))
    assert shards
    again = extractor.cache_features(dataset=data, batch_size=32, cache_dir="./feature_cache", progress=False)
    assert again.computed == 0 and again.features.shape == (6, 1792)
    torch.testing.assert_close(again.features[:2], features, rtol=1e-3, atol=1e-5)


def test_fine_tuning(resnet, workplace):
    names = run(
        the_block("Fine-tuning"),
        vision_model=resnet,
        train_dataset=labelled(4, classes=4),
        val_dataset=labelled(4, classes=4),
        early_stopping=EarlyStopping(monitor="val_accuracy", patience=2, mode="max"),
        model_checkpoint=ModelCheckpoint("./checkpoints/best", monitor="val_accuracy", save_best_only=True),
    )
    finetuner = names["finetuner"]
    assert 3 <= len(finetuner.history) <= 10
    assert {"accuracy", "f1_score", "val_accuracy", "val_f1_score"} <= set(finetuner.history.epochs[-1])
    assert changed(finetuner.model, resnet) == {"bn1", "layer2", "layer3", "layer4"}
    linear = [layer for layer in finetuner.model.head.modules() if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(2048, 256), (256, 10)]
    loaded = Finetuner.load("./checkpoints/best", device="cpu")
    assert loaded.predict_proba(images(2)).shape == (2, 10)


def test_parameter_efficient_fine_tuning(serve):
    serve("bert-base-uncased")
    base = load_pretrained_model(
        "bert-base-uncased", domain="nlp", weights="bert-base-uncased", max_length=512, include_top=False, device="cpu"
    )
    tuner = run(the_block("Parameter-Efficient Fine-tuning"), nlp_model=base)["adapter_tuner"]
    texts = ["a good film", "a bad one", "dull", "fine, all in all"]
    tuner.fit((texts, ["good", "bad", "bad", "good"]), epochs=1, batch_size=2, run=False)
    before, after = base.trunk.state_dict(), tuner.detach().trunk.state_dict()
    assert all(tensor_digest(before[name]) == tensor_digest(after[name]) for name in before)
    # BERT has the sizes of the hub's small stand-in here: two adapters in each block, of 64 features
    width, layers = base.feature_size, len(base.stages) - 1
    own = sum(tuner.model.get_parameter(name).numel() for name in tuner.own_parameters)
    assert own == layers * 2 * (2 * 64 * width + width + 64)
    assert {"accuracy", "f1_score", "loss"} <= tuner.evaluate((texts, ["good", "bad", "bad", "good"])).keys()


@pytest.mark.parametrize(
    ("task_type", "architecture"),
    [("image_classification", "resnet50"), ("text_classification", "bert-base-uncased")],
)
def test_choosing_by_task(serve, task_type, architecture):
    serve(architecture)
    model = run(the_block("Choosing the Right Pre-trained Model", 0), task_type=task_type)["model"]
    assert model.name == architecture
    assert model.load_report.pretrained_share == 1.0


@pytest.mark.parametrize(("resources", "architecture"), [("limited", "mobilenetv2"), ("abundant", "efficientnet-b7")])
def test_choosing_by_resources(serve, resources, architecture):
    serve(architecture)
    model = run(the_block("Choosing the Right Pre-trained Model", 1), resources=resources)["model"]
    assert model.name == architecture
    assert model.load_report.pretrained_share == 1.0


@pytest.mark.parametrize(
    ("data_size", "frozen"),
    [("very_small", None), ("moderate", {"conv1", "layer1", "layer2"}), ("large", set())],
)
def test_choosing_by_amount_of_data(resnet, data_size, frozen):
    names = run(
        the_block("Choosing the Right Pre-trained Model", 2),
        model=resnet,
        num_classes=3,
        input_data=images(2),
        data_size=data_size,
    )
    if frozen is None:
        assert names["features"].shape == (2, 2048)
        return
    model = names["finetuner"].model
    still = {name.split(".")[0] for name, parameter in model.trunk.named_parameters() if not parameter.requires_grad}
    assert still == frozen
    assert model.head.weight.shape == (3, 2048)


def test_progressive_unfreezing(resnet):
    block = the_block("Fine-tuning Strategies", 0)
    names = run(block, model=resnet, num_classes=3, train_dataset=labelled(3), val_dataset=labelled(3))
    history = names["finetuner"].history
    trained = [{name.split(".")[0] for name in rates} for rates in history["learning_rates"]]
    assert len(trained) == 15
    assert trained[0] == trained[4] == {"bn1", "layer4", "fc"}
    assert trained[5] == trained[9] == trained[0] | {"layer3"}
    assert trained[10] == trained[14] == trained[5] | {"layer2", "layer1", "conv1"}
    assert changed(names["finetuner"].model, resnet) == trained[14] - {"fc"}


def test_discriminative_learning_rates(resnet):
    names = run(
        the_block("Fine-tuning Strategies", 1),
        model=resnet,
        num_classes=3,
        train_dataset=labelled(3),
        val_dataset=labelled(3),
    )
    finetuner = names["finetuner"]
    base = {group["name"]: group["base_lr"] for group in finetuner.optimizer.param_groups}
    assert {base[name] for name in base if name.startswith("layer1")} == {3e-5}
    assert {base[name] for name in base if name.startswith("layer4")} == {1e-3}
    assert base["conv1"] == 1e-5 and base["fc"] == 1e-3
    assert len(finetuner.history) == 10
    assert {"conv1", "layer1", "layer2", "layer3", "layer4"} <= changed(finetuner.model, resnet)


def test_image_classification_tutorial(serve, workplace, capsys):
    serve("resnet50")
    lay_flowers(workplace, train=1, validation=1)
    names = run(the_block("Image Classification with Transfer Learning"))
    printed = capsys.readouterr().out
    shown = dict(
        re.findall(
            r"^Test (\S+) ?accuracy: (\d\.\d{4})$", printed.replace("Test accuracy", "Test plain accuracy"), re.M
        )
    )
    assert set(shown) == {"plain", "top-5"}
    assert 0 <= float(shown["plain"]) <= float(shown["top-5"]) <= 1
    finetuner = names["finetuner"]
    assert finetuner.model.categories == FLOWERS
    assert 6 <= len(finetuner.history) <= 20
    assert {"layer2", "layer3", "layer4"} <= changed(finetuner.model, names["model"])
    assert not {"conv1", "layer1"} & changed(finetuner.model, names["model"])
    best = Finetuner.load("./checkpoints/resnet50_flowers", device="cpu")
    reached = best.evaluate(names["val_dataset"])["accuracy"]
    assert reached == pytest.approx(max(finetuner.history["val_accuracy"]), abs=1e-6)


# --- README ------------------------------------------------------------------------------------------------------


@pytest.mark.real_weights
@pytest.mark.parametrize("block", code_blocks(README), ids=str)
def test_readme(block, workplace):
    block.run({})


def test_readme_names_every_strategy():
    text = README.read_text(encoding="utf-8")
    assert [name for name in STRATEGIES if f"| `{name}` |" not in text] == []


# --- docs/models.md ----------------------------------------------------------------------------------------------


def test_every_model_is_in_the_table() -> None:
    text = (README.parent / "docs" / "models.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`([\w./-]+)`", text))
    for first, last in re.findall(r"`([\w./-]+)` … `([\w./-]+)`", text):
        stem = first.rstrip("0123456789")
        listed |= {f"{stem}{number}" for number in range(int(first[len(stem) :]), int(last[len(stem) :]) + 1)}
    assert set(list_models()) <= listed
