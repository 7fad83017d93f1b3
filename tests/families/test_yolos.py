"""YOLOS: transformers' answers and losses bit by bit, its files, own classes, and the images that it reads."""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from neurenix.errors import (
    ConfigurationError,
    DamagedFileError,
    InputMismatchError,
    LabelMismatchError,
    WeightsMismatchError,
)
from neurenix.models import ARCHITECTURES, BuildOptions, PretrainedModel
from neurenix.models.vision.yolos import convert
from neurenix.transfer import AdapterTuner, Finetuner, LoraTuner, load_pretrained_model

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "image_size": [48, 80],
    "num_detection_tokens": 6,
}


def library(**changes: Any) -> nn.Module:
    """transformers' network, tiny and with numbers large enough that its answers differ."""
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = transformers.YolosForObjectDetection(
            transformers.YolosConfig(**{**SIZES, "num_labels": 5, "attn_implementation": "sdpa", **changes})
        )
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape))
    return network.eval()


def write(network: nn.Module, folder: Path) -> Path:
    """As the hub has it: model.safetensors beside config.json."""
    network.save_pretrained(folder)
    assert {"model.safetensors", "config.json"} <= {path.name for path in folder.iterdir()}
    return folder


@pytest.fixture(scope="module", params=[True, False], ids=["mid positions", "first positions"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, PretrainedModel]:
    network = library(use_mid_position_embeddings=request.param)
    folder = write(network, tmp_path_factory.mktemp("yolos"))
    return network, load_pretrained_model("yolos-tiny", weights=folder, device="cpu")


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, 64, 96, generator=generator)
    return {"images": images, "image_sizes": torch.tensor([[64, 96], [50, 40]])}


def targets() -> dict[str, Tensor]:
    boxes = torch.tensor([[[8.0, 8, 40, 40], [50, 10, 90, 60]], [[5, 20, 30, 50], [0, 0, 0, 0]]])
    return {"boxes": boxes, "labels": torch.tensor([[3, 1], [4, -1]])}


def relative_targets() -> list[dict[str, Tensor]]:
    """The same as the library reads them: centre and size as shares of each image without its filling."""
    found = []
    for boxes, labels, (height, width) in zip(*targets().values(), batch()["image_sizes"].tolist(), strict=True):
        x1, y1, x2, y2 = (boxes[labels >= 0] / torch.tensor([width, height, width, height])).unbind(1)
        centred = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1)
        found.append({"class_labels": labels[labels >= 0], "boxes": centred})
    return found


@torch.no_grad()
def test_features_and_answers_equal_the_library_bit_by_bit(pair: tuple[Any, PretrainedModel]) -> None:
    network, model = pair
    assert {fate.fate for fate in model.load_report.tensors} == {"matched"}
    expected = network(batch()["images"])
    assert torch.equal(model.features(batch()), expected.last_hidden_state)
    logits, boxes = model.head.raw(model.features(batch()))
    assert torch.equal(logits, expected.logits) and torch.equal(boxes, expected.pred_boxes)


@torch.no_grad()
def test_detections_are_those_of_the_librarys_own_reading(pair: tuple[Any, PretrainedModel]) -> None:
    from transformers.models.yolos.image_processing_yolos import YolosImageProcessor

    network, model = pair
    read = YolosImageProcessor().post_process_object_detection(
        network(batch()["images"]), threshold=0.0, target_sizes=batch()["image_sizes"]
    )
    for ours, theirs in zip(model(batch()), read, strict=True):
        order = theirs["scores"].argsort(descending=True, stable=True)
        assert torch.equal(ours["scores"], theirs["scores"][order]) and len(order) == 6
        assert torch.equal(ours["labels"], theirs["labels"][order])
        torch.testing.assert_close(ours["boxes"], theirs["boxes"][order])


def test_losses_equal_the_library_bit_by_bit(pair: tuple[Any, PretrainedModel]) -> None:
    network, model = pair
    with torch.no_grad():
        expected = network(batch()["images"], labels=relative_targets())
        shares = model.head.losses(model.features(batch()), batch(), targets())
    assert torch.equal(sum(shares.values()), expected.loss)
    assert list(shares) == ["loss_ce", "loss_bbox", "loss_giou"]


@torch.no_grad()
def test_pooled_features_are_those_of_patches_that_show_the_image(pair: tuple[Any, PretrainedModel]) -> None:
    _, model = pair
    tokens = model.features(batch())
    assert tokens.shape == (2, 1 + 4 * 6 + 6, 24)
    patches = tokens[1, 1:25].reshape(4, 6, 24)[:4, :3]  # 50 x 40 pixels reach into so many of 16 x 16
    torch.testing.assert_close(model.embed(batch())[1], patches.flatten(0, 1).mean(0))
    torch.testing.assert_close(model.embed(batch()["images"])[0], tokens[0, 1:25].mean(0))


def test_one_step_lowers_the_loss_and_own_classes_begin_with_nought(pair: tuple[Any, PretrainedModel]) -> None:
    model = copy.deepcopy(pair[1])
    head = model.head.for_classes(2)
    assert (head.num_outputs, model.head.num_outputs, model.head.config.num_labels) == (2, 5, 5)
    old, new = model.head.state_dict(), head.state_dict()
    changed = {name for name in old if old[name].shape != new[name].shape}
    assert changed == {f"class_labels_classifier.layers.2.{part}" for part in ("weight", "bias")}
    assert all(torch.equal(old[name], new[name]) for name in old.keys() - changed)
    with pytest.raises(ConfigurationError, match="num_outputs"):
        model.head.for_classes(True)
    model.replace_head(head)
    wanted = {**targets(), "labels": torch.tensor([[0, 1], [1, -1]])}
    optimizer, values = torch.optim.SGD(model.parameters(), lr=1e-3), []
    for _ in range(2):
        loss = sum(head.losses(model.features(batch()), batch(), wanted).values())
        values.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert values[1] < values[0]


def test_images_without_objects_and_answers_that_are_no_numbers(pair: tuple[Any, PretrainedModel]) -> None:
    _, model = pair
    nothing = {"boxes": torch.zeros(2, 0, 4), "labels": torch.zeros(2, 0, dtype=torch.int64)}
    with torch.no_grad():
        features = model.features(batch())
        shares = model.head.losses(features, batch(), nothing)
        assert float(shares["loss_bbox"]) == 0 < float(shares["loss_ce"])
        assert not sum(model.head.losses(features * float("nan"), batch(), targets()).values()).isfinite()


@torch.no_grad()
def test_saved_and_loaded(pair: tuple[Any, PretrainedModel], tmp_path: Path) -> None:
    network, model = pair
    write(network, tmp_path)
    state = {name: x.contiguous() for name, x in model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    again = load_pretrained_model("yolos-tiny", weights=tmp_path, device="cpu")
    assert {fate.fate for fate in again.load_report.tensors} == {"matched"}
    assert torch.equal(again(batch())[0]["boxes"], model(batch())[0]["boxes"])


def test_freezing_and_tuners_find_their_places(pair: tuple[Any, PretrainedModel]) -> None:
    model = pair[1]
    between = ("encoder.interpolation",) if model.trunk.config.use_mid_position_embeddings else ()
    assert model.stages == ("embeddings", "encoder.layer.0", "encoder.layer.1", *between, "layernorm")
    Finetuner(copy.deepcopy(model), num_classes=3, freeze_layers=["embeddings", "encoder.layer.0"])
    for kind in ("houlsby", "pfeiffer", "parallel"):
        AdapterTuner(copy.deepcopy(model), num_classes=3, adapter_type=kind)
    LoraTuner(copy.deepcopy(model), num_classes=3)


@pytest.mark.parametrize(("size", "parameters"), [("tiny", 6_488_736), ("small", 30_684_768)])
def test_published_sizes(size: str, parameters: int) -> None:
    """Four bytes for each parameter are the 26 and 123 MB of the published files."""
    architecture = ARCHITECTURES[f"yolos-{size}"]
    with torch.device("meta"):
        parts = architecture.build(BuildOptions(num_classes=91))
    assert sum(x.numel() for part in (parts.trunk, parts.head) for x in part.parameters()) == parameters
    assert parts.head.num_outputs == 91 and parts.stages == architecture.stages
    assert architecture.input.size == ((512, 853) if size == "tiny" else (800, 1333))
    assert ARCHITECTURES[f"hustvl/yolos-{size}"] is architecture


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = write(library(), tmp_path)
    load = partial(load_pretrained_model, "yolos-tiny", weights=folder, device="cpu")
    config = json.loads((folder / "config.json").read_text())
    for change, error, words in (
        ({"image_size": [48]}, DamagedFileError, "image_size"),
        ({"image_size": [48, 10**9]}, DamagedFileError, "image_size"),
        ({"hidden_size": "large"}, DamagedFileError, "hidden_size"),
        ({"num_attention_heads": 7}, DamagedFileError, "heads"),
        ({"model_type": "vit"}, WeightsMismatchError, "'vit'"),
        ({"hidden_size": 48}, WeightsMismatchError, "in the file"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(error, match=words):
            load()
    (folder / "config.json").write_text(json.dumps(config))
    state = load_file(folder / "model.safetensors")
    save_file({name.replace("vit.", "bert."): x for name, x in state.items()}, folder / "model.safetensors")
    with pytest.raises(WeightsMismatchError):
        load()
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(DamagedFileError):
        load()


def test_names_are_converted_once() -> None:
    keys = ["vit.embeddings.cls_token", "class_labels_classifier.layers.0.weight", "bbox_predictor.layers.2.bias"]
    ours = convert(dict.fromkeys(keys, torch.zeros(1)))
    assert list(ours) == [
        "trunk.embeddings.cls_token",
        "head.class_labels_classifier.layers.0.weight",
        "head.bbox_predictor.layers.2.bias",
    ]
    assert list(convert(ours)) == list(ours)


def test_wrong_inputs_and_targets_are_named(pair: tuple[Any, PretrainedModel]) -> None:
    _, model = pair
    with pytest.raises(InputMismatchError, match="multiples of 16"):
        model(torch.zeros(1, 3, 60, 64))
    with torch.no_grad(), pytest.raises(LabelMismatchError, match="boxes, labels"):
        model.head.losses(model.features(batch()), batch(), torch.tensor([1, 2]))
