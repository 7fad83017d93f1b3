"""What every adaptation of inputs promises, over a network of each family of images and over all edits of inputs."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.local_hub import write_text_checkpoint

from neurenix.models import ARCHITECTURES, PretrainedModel
from neurenix.transfer import (
    Finetuner,
    adapt_channels,
    adapt_length,
    adapt_resolution,
    adapt_to_series,
    adapt_to_sounds,
    adapt_to_tables,
    adapt_to_video,
    list_edits,
    load_pretrained_model,
    replay_edits,
    undo_edit,
)
from neurenix.transfer.surgery._edit import EDITS, InputEdit
from neurenix.vision import ImageInput, SegmentationInput

IMAGES = [
    "resnet18",
    "torchvision/efficientnet-b0",
    "efficientnet-lite0",
    "vit-tiny-patch16-224",
    "mobilenetv2",
]
SEGMENTERS = ["unet-mobilenet_v2"]
SIDE = 64

Adapt = Callable[[PretrainedModel], Any]
ROWS = [{"age": 40.0, "colour": "red"}, {"age": None, "colour": "green"}, {"age": 50.0, "colour": "pink"}]
SERIES = list(np.random.default_rng(3).normal(size=(3, 64, 2)))
WAYS: dict[str, tuple[str, Adapt, Callable[[], Any]]] = {
    "grey": ("mobilenetv2", lambda model: adapt_channels(model, 1), lambda: uint8(SIDE, SIDE)),
    "bands": (
        "vit-tiny-patch16-224",
        lambda model: adapt_channels(
            model, 4, bands={"nir": "red", "red": "red", "swir": {"red": 0.5, "green": 0.5}, "mask": {}}
        ),
        lambda: uint8(SIDE, SIDE, 4),
    ),
    "matched": (
        "mobilenetv2",
        lambda model: adapt_channels(model, 2, data=[uint8(SIDE, SIDE, 2) for _ in range(3)]),
        lambda: uint8(SIDE, SIDE, 2),
    ),
    "size": ("vit-tiny-patch16-224", lambda model: adapt_resolution(model, (32, 96)), lambda: uint8(40, 90, 3)),
    "patches": (
        "vit-tiny-patch16-224",
        lambda model: adapt_resolution(model, 48, patch_size=8),
        lambda: uint8(SIDE, SIDE, 3),
    ),
    "sounds": ("mobilenetv2", lambda model: adapt_to_sounds(model, seconds=0.5), lambda: sound(9_000)),
    "heard": (
        "vit-tiny-patch16-224",
        lambda model: adapt_to_sounds(model, data=[sound(8_000), sound(20_000)]),
        lambda: sound(9_000),
    ),
    "video": ("mobilenetv2", lambda model: adapt_to_video(model, 3), lambda: uint8(4, SIDE, SIDE, 3)),
    "attended": (
        "vit-tiny-patch16-224",
        lambda model: adapt_to_video(model, 3, pooling="attention"),
        lambda: uint8(4, SIDE, SIDE, 3),
    ),
    "table": (
        "vit-tiny-patch16-224",
        lambda model: adapt_to_tables(model, {"age": "number", "colour": ["red", "green"]}, data=ROWS),
        lambda: ROWS[0],
    ),
    "series": (
        "vit-tiny-patch16-224",
        lambda model: adapt_to_series(model, channels=2, length=64, patch=8, data=SERIES),
        lambda: SERIES[0],
    ),
}
EDIT_OF = {
    **dict.fromkeys(("grey", "bands", "matched"), "adapt_channels"),
    **dict.fromkeys(("size", "patches"), "adapt_resolution"),
    **dict.fromkeys(("sounds", "heard"), "adapt_to_sounds"),
    **dict.fromkeys(("video", "attended"), "adapt_to_video"),
    **{"table": "adapt_to_tables", "series": "adapt_to_series"},
}
OF_EACH = ["matched", "patches", "heard", "attended", "table", "series"]  # one that has numbers of its own


OF_TEXTS: dict[str, tuple[Adapt, Callable[[], Any]]] = {
    "table": (
        lambda model: adapt_to_tables(model, {"age": "number", "colour": ["red", "green"]}, data=ROWS),
        lambda: ROWS[0],
    ),
    "series": (lambda model: adapt_to_series(model, channels=2, length=64, patch=8, data=SERIES), lambda: SERIES[0]),
    "repeated": (lambda model: adapt_length(model, 700), lambda: "word " * 800),
    "stretched": (lambda model: adapt_length(model, 700, how="interpolate"), lambda: "word " * 800),
}


def uint8(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def sound(samples: int) -> tuple[np.ndarray, int]:
    return np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32), 16_000


def loaded(name: str, **arguments: Any) -> PretrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_pretrained_model(name, weights=None, device="cpu", **arguments)


@pytest.fixture(scope="module", params=IMAGES)
def family(request: pytest.FixtureRequest) -> PretrainedModel:
    return loaded(request.param, input_shape=(SIDE, SIDE, 3))


@pytest.fixture(scope="module")
def base() -> Callable[[str], PretrainedModel]:
    """A copy of a model that is built once."""
    built: dict[str, PretrainedModel] = {}

    def give(name: str) -> PretrainedModel:
        if name not in built:
            built[name] = loaded(name, input_shape=(SIDE, SIDE, 3))
        return copy.deepcopy(built[name])

    return give


class Kept:
    """Every byte of a model, and its preprocessing."""

    def __init__(self, model: PretrainedModel) -> None:
        self.model, self.preprocess = model, model.preprocess
        self.state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.edits = list_edits(model)

    def check(self) -> None:
        now = self.model.state_dict()
        assert now.keys() == self.state.keys()
        assert all(torch.equal(now[name], tensor) for name, tensor in self.state.items())
        assert self.model.preprocess == self.preprocess
        assert list_edits(self.model) == self.edits


def read(model: PretrainedModel, raw: Any) -> Any:
    """A batch of one."""
    ready = model.preprocess(raw)
    return {name: value[None] for name, value in ready.items()} if isinstance(ready, dict) else ready[None]


def test_every_family_of_images_is_here() -> None:
    stems = {ARCHITECTURES[name].roles["stem"] for name in IMAGES}
    of_images = {n for n, a in ARCHITECTURES.items() if isinstance(a.input, ImageInput) and "classification" in a.tasks}
    assert {ARCHITECTURES[name].roles["stem"] for name in of_images} == stems


def test_every_edit_of_inputs_is_here() -> None:
    assert {*EDIT_OF.values(), "adapt_length"} == {name for name, kind in EDITS.items() if issubclass(kind, InputEdit)}
    assert EDIT_OF.keys() == WAYS.keys()


def test_the_same_channels_and_size_change_nothing(family: PretrainedModel) -> None:
    kept = Kept(family)
    assert adapt_channels(family, 3) is None
    assert adapt_channels(family, 3, bands={"red": "red", "green": "green", "blue": "blue"}) is None
    assert adapt_resolution(family, (SIDE, SIDE)) is None
    kept.check()


@torch.inference_mode()
@pytest.mark.parametrize("channels", [2, 13])
def test_channels_of_every_family(family: PretrainedModel, channels: int) -> None:
    kept, stem = Kept(family), family.architecture.roles["stem"]
    adapt_channels(family, channels)
    assert family.trunk.get_submodule(stem).in_channels == channels
    image = uint8(80, 80, channels) if channels > 1 else uint8(80, 80)
    assert family(read(family, image)).shape == (1, 1000)
    record = list_edits(family)[-1]
    if channels == 13:
        back = torch.linalg.pinv(torch.tensor(record["matrix"])).tolist()
        adapt_channels(family, 3, how=back)
        name = f"trunk.{stem}.weight"
        torch.testing.assert_close(family.state_dict()[name], kept.state[name], rtol=1e-5, atol=1e-6)
        undo_edit(family)
    undo_edit(family)
    kept.check()


@torch.inference_mode()
def test_grey_by_the_sum_is_the_image_in_three_equal_colours(family: PretrainedModel) -> None:
    grey = torch.rand(2, 1, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = copy.deepcopy(family).double()(grey.expand(-1, 3, -1, -1))
    adapted = copy.deepcopy(family)
    adapt_channels(adapted, 1)
    filters = adapted.trunk.get_submodule(family.architecture.roles["stem"]).weight
    assert filters.shape[1] == 1
    double = copy.deepcopy(family)
    double.double()
    layer = double.trunk.get_submodule(family.architecture.roles["stem"])
    layer.weight, layer.in_channels = torch.nn.Parameter(layer.weight.sum(1, keepdim=True)), 1
    torch.testing.assert_close(double(grey), expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(filters.double(), layer.weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(adapted(grey.float()).double(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["mobilenetv2", "vit-tiny-patch16-224"])
def test_loading_with_channels_is_loading_and_adapting(
    name: str, base: Callable[[str], PretrainedModel], tmp_path: Path
) -> None:
    other, file = base(name), tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in other.state_dict().items()}, file)
    one = load_pretrained_model(name, weights=file, input_shape=(SIDE, SIDE, 5), device="cpu")
    adapt_channels(other, 5)
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in one.state_dict().items())
    assert one.preprocess == other.preprocess


@torch.inference_mode()
def test_sizes_of_every_family(family: PretrainedModel) -> None:
    kept = Kept(family)
    adapt_resolution(family, (96, 32))
    assert family(read(family, uint8(50, 70, 3))).shape == (1, 1000)
    assert family.preprocess.spec.size == (96, 32)
    undo_edit(family)
    kept.check()


@torch.inference_mode()
@pytest.mark.parametrize("name", SEGMENTERS)
def test_segmenters_read_grey_images_of_other_sizes(name: str) -> None:
    model = loaded(name)
    assert isinstance(model.preprocess.spec, SegmentationInput)
    kept = Kept(model)
    adapt_channels(model, 1)
    adapt_resolution(model, 96)
    inputs = {key: value[None] for key, value in model.preprocess(uint8(50, 60)).items()}
    assert inputs["images"].shape == (1, 1, 96, 96)
    assert model(inputs).shape[-2:] == (96, 96)
    undo_edit(model)
    undo_edit(model)
    kept.check()


@pytest.mark.parametrize("name", ["yolox-nano"])
def test_detectors_change_their_size(name: str) -> None:
    model = loaded(name)
    kept = Kept(model)
    adapt_resolution(model, (96, 128))
    assert model.preprocess.spec.size == (96, 128)
    undo_edit(model)
    kept.check()


@torch.inference_mode()
@pytest.mark.parametrize("way", WAYS)
def test_undo_gives_every_byte_back(way: str, base: Callable[[str], PretrainedModel]) -> None:
    name, adapt, raw = WAYS[way]
    model = base(name)
    kept = Kept(model)
    record = adapt(model)
    assert json.loads(json.dumps(record)) == record
    assert record["edit"] == EDIT_OF[way]
    assert model(read(model, raw())).shape == (1, 1000)
    undo_edit(model)
    kept.check()
    assert model.edits is None


@torch.inference_mode()
@pytest.mark.parametrize("way", OF_EACH)
def test_replay_on_a_fresh_base_gives_the_same(way: str, base: Callable[[str], PretrainedModel]) -> None:
    name, adapt, raw = WAYS[way]
    model, fresh = base(name), base(name)
    adapt(model)
    replay_edits(fresh, model)
    assert fresh.preprocess == model.preprocess
    assert torch.equal(fresh(read(fresh, raw())), model(read(model, raw())))


@torch.inference_mode()
@pytest.mark.parametrize("way", OF_EACH)
def test_saved_and_loaded_it_answers_the_same(way: str, base: Callable[[str], PretrainedModel], tmp_path: Path) -> None:
    name, adapt, raw = WAYS[way]
    model = base(name)
    adapt(model)
    tuner = Finetuner(model, num_classes=3)
    tuner.save(tmp_path)
    again = Finetuner.load(tmp_path, device="cpu")
    assert again.model.preprocess == tuner.model.preprocess
    assert list_edits(again.model) == json.loads(json.dumps(list_edits(tuner.model)))
    assert torch.equal(again.model(read(again.model, raw())), tuner.model(read(tuner.model, raw())))
    undo_edit(again.model)
    undo_edit(tuner.model)
    assert again.model.preprocess == tuner.model.preprocess
    image = uint8(SIDE, SIDE, 3)
    assert torch.equal(again.model(read(again.model, image)), tuner.model(read(tuner.model, image)))


@pytest.mark.parametrize("way", ["grey", "patches", "table", "attended"])
def test_an_optimizer_follows(way: str, base: Callable[[str], PretrainedModel]) -> None:
    name, _, _ = WAYS[way]
    model = base(name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    match way:
        case "grey":
            adapt_channels(model, 1, optimizer=optimizer)
        case "patches":
            adapt_resolution(model, 48, patch_size=8, optimizer=optimizer)
        case "attended":
            adapt_to_video(model, 2, pooling="attention", optimizer=optimizer)
        case _:
            adapt_to_tables(model, {"age": "number"}, optimizer=optimizer)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.parameters()}


@pytest.fixture(scope="module", params=["bert-base-uncased", "roberta-base"])
def of_texts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PretrainedModel:
    """A small checkpoint in the published format, which a saved tuning finds again."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_text_checkpoint(folder, request.param.partition("-")[0])
    return load_pretrained_model(request.param, weights=folder, device="cpu")


@torch.inference_mode()
@pytest.mark.parametrize("way", OF_TEXTS)
def test_networks_of_texts_read_other_things(way: str, of_texts: PretrainedModel, tmp_path: Path) -> None:
    adapt, raw = OF_TEXTS[way]
    model = copy.deepcopy(of_texts)
    kept, answer = Kept(model), model(read(model, "a text"))
    record = adapt(model)
    assert json.loads(json.dumps(record)) == record
    tuner = Finetuner(model, num_classes=3)
    tuner.save(tmp_path)
    again = Finetuner.load(tmp_path, device="cpu")
    inputs = read(again.model, raw())
    assert again.model(inputs).shape == (1, 3)
    assert torch.equal(again.model(inputs), tuner.model(inputs))
    fresh = copy.deepcopy(of_texts)
    replay_edits(fresh, model)
    assert torch.equal(fresh(inputs), model(inputs))
    if way == "repeated":
        assert torch.equal(model(read(model, "a text")), answer)
    undo_edit(model)
    kept.check()
    assert torch.equal(model(read(model, "a text")), answer)
