"""load_pretrained_model and list_models: arguments, adaptation, the load report, named errors."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.local_hub import (
    LocalHub,
    local_hub,
    relaxed_records,
    write_random_checkpoint,
    write_text_checkpoint,
    write_timm_checkpoint,
)
from torch import nn

from neurenix.errors import (
    ConfigurationError,
    LicenceError,
    UnknownNameError,
    WeightsMismatchError,
    WeightsNotFoundError,
)
from neurenix.models import ARCHITECTURES
from neurenix.transfer import list_models, load_pretrained_model
from neurenix.transfer.pretrained import list_weights


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resnet18")
    write_timm_checkpoint(folder, "resnet18")
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    write_timm_checkpoint(folder, "vit_tiny_patch16_224")
    return folder / "model.safetensors"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with local_hub(tmp_path) as hub, relaxed_records():
        yield hub


def load(name: str, **arguments: Any) -> Any:
    return load_pretrained_model(name, device="cpu", **arguments)


# --- the calls of the specification ---


def test_vision_as_specified(hub: LocalHub) -> None:
    write_random_checkpoint(hub, "resnet50")
    model = load_pretrained_model(
        model_name="resnet50",
        domain="vision",
        weights="imagenet",
        input_shape=(224, 224, 3),
        include_top=False,
        pooling="avg",
        device="cpu",
    )
    assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 2048)
    assert model.load_report.pretrained_share == 1
    assert model.categories == ()
    assert model.source == {
        "model_name": "resnet50",
        "weights": "imagenet",
        "input_shape": [224, 224, 3],
        "include_top": False,
        "pooling": "avg",
        "max_length": None,
        "minimum_pretrained": 0.9,
        "accept_licence": False,
        "weights_sha256": model.source["weights_sha256"],
        "revision": hub.find("timm/resnet50.tv_in1k", "main")[0],
    }
    assert len(model.source["weights_sha256"]) == 64


def test_text_as_specified(hub: LocalHub) -> None:
    write_random_checkpoint(hub, "bert-base-uncased")
    model = load_pretrained_model(
        model_name="bert-base-uncased",
        domain="nlp",
        weights="bert-base-uncased",
        max_length=512,
        include_top=False,
        pooling="cls",
        device="cpu",
    )
    tokens = {name: value[None] for name, value in model.preprocess("the film was good").items()}
    assert tokens["input_ids"].shape == (1, 6)
    assert torch.equal(model(tokens), model.features(tokens)[:, 0])
    dropped = model.load_report.names("dropped")
    assert any("cls.predictions" in name for name in dropped) and any("pooler" in name for name in dropped)


def test_signature_is_flat_and_typed() -> None:
    parameters = inspect.signature(load_pretrained_model).parameters
    assert list(parameters)[:8] == [
        "model_name",
        "domain",
        "weights",
        "input_shape",
        "include_top",
        "pooling",
        "max_length",
        "device",
    ]
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters.values())
    assert all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("ResNet50", "resnet50"),
        ("resnet-50", "resnet50"),
        ("MobileNetV2", "mobilenetv2"),
        ("mobilenet_v2", "mobilenetv2"),
        ("efficientnet-b7", "efficientnet-b7"),
        ("EfficientNet_B7", "efficientnet-b7"),
        ("efficientnetb7", "efficientnet-b7"),
        ("tf_efficientnet_b7", "efficientnet-b7"),
        ("google-bert/bert-base-uncased", "bert-base-uncased"),
        ("FacebookAI/roberta-base", "roberta-base"),
        ("minilm-l6-v2", "all-minilm-l6-v2"),
        ("vit_base_patch16_224", "vit-base-patch16-224"),
    ],
)
def test_names_as_people_spell_them(spelling: str, name: str) -> None:
    assert ARCHITECTURES[spelling].name == name


def test_list_models() -> None:
    assert list_models() == sorted(ARCHITECTURES)
    assert list_models(domain="text") == list_models(domain="nlp")
    domains = [list_models(domain=domain) for domain in ("nlp", "vision", "audio")]
    assert sorted(name for names in domains for name in names) == sorted(ARCHITECTURES)
    assert "resnet50" in list_models(domain="vision", task="classification")
    with pytest.raises(UnknownNameError, match="domain"):
        list_models(domain="visoin")
    with pytest.raises(ConfigurationError, match="classification"):
        list_models(task="cooking")


def test_list_weights_begins_with_the_default() -> None:
    assert list_weights("ResNet50") == ["imagenet", "a1", "imagenet-v1", "imagenet-v2"]


# --- images of another shape ---


@torch.inference_mode()
def test_vit_positions_are_interpolated(vit_file: Path) -> None:
    from timm.layers import resample_abs_pos_embed

    model = load("vit-tiny", weights=vit_file, input_shape=(96, 128, 3))
    published = load_file(vit_file)["pos_embed"]
    assert torch.equal(model.trunk.pos_embed, resample_abs_pos_embed(published, [6, 8]))
    assert model.load_report.names("adapted") == ["trunk.pos_embed"]
    assert model.load_report.pretrained_share == 1
    assert model.preprocess.spec.size == (96, 128)
    assert model.features(torch.zeros(1, 3, 96, 128)).shape == (1, 1 + 6 * 8, 192)


def test_vit_size_must_be_whole_patches() -> None:
    with pytest.raises(ConfigurationError, match="multiples of 16"):
        load("vit-tiny", weights=None, input_shape=(100, 100, 3))


@torch.inference_mode()
def test_one_channel_sees_what_three_equal_ones_show(resnet_file: Path) -> None:
    """A grey picture through the summed filters is the colour picture with three equal planes."""
    grey = load("resnet18", weights=resnet_file, input_shape=(64, 64, 1))
    colour = load("resnet18", weights=resnet_file, input_shape=(64, 64, 3))
    picture = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(grey(picture), colour(picture.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-3)
    assert grey.load_report.names("adapted") == ["trunk.conv1.weight"]
    assert grey.preprocess.spec.mean == (pytest.approx((0.485 + 0.456 + 0.406) / 3),)


def test_more_channels_repeat_the_filters(resnet_file: Path) -> None:
    model = load("resnet18", weights=resnet_file, input_shape=(64, 64, 6))
    published = load_file(resnet_file)["conv1.weight"]
    assert torch.equal(model.trunk.conv1.weight, torch.cat([published, published], 1) * 0.5)
    assert model.preprocess.spec.mean == (0.485, 0.456, 0.406) * 2


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 224, 224), r"write \(height, width, channels\): \(224, 224, 3\)"),
        ((224, 224), "three positive"),
        ((224, 224, 0), "three positive"),
        ((224.0, 224, 3), "three positive"),
    ],
)
def test_impossible_shapes(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load("resnet18", weights=None, input_shape=shape)


# --- top and pooling ---


def test_head_is_as_large_as_the_files(tmp_path: Path) -> None:
    write_timm_checkpoint(tmp_path, "resnet18", classes=5)
    model = load("resnet18", weights=tmp_path)
    assert model.head.out_features == 5
    assert torch.equal(model.head.weight, load_file(tmp_path / "model.safetensors")["fc.weight"])
    assert model.categories == () and model.load_report.names("new") == []


def test_file_without_a_head_gives_features(resnet_file: Path, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in load_file(resnet_file).items() if not name.startswith("fc.")}
    save_file(state, tmp_path / "trunk.safetensors")
    model = load("resnet18", weights=tmp_path / "trunk.safetensors")
    assert isinstance(model.head, nn.Identity) and model.load_report.pretrained_share == 1


def test_published_head_has_names(hub: LocalHub) -> None:
    write_random_checkpoint(hub, "resnet18")
    model = load("resnet18")
    assert len(model.categories) == 1000
    assert (model.categories[0], model.categories[207], model.categories[-1]) == (
        "tench",
        "golden retriever",
        "toilet tissue",
    )


@pytest.mark.parametrize(("name", "mode"), [("resnet18", "avg"), ("vit-tiny", "cls"), ("minilm", "avg")])
@pytest.mark.parametrize("include_top", [True, False])
def test_no_pooling_named_is_the_published_one(name: str, mode: str, include_top: bool) -> None:
    assert load(name, weights=None, include_top=include_top).pool.mode == mode


@pytest.mark.parametrize("pooling", ["max", "gem", "avg"])
def test_pooling_modes(pooling: str) -> None:
    model = load("resnet18", weights=None, include_top=False, pooling=pooling)
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 512)


def test_pooling_none_gives_the_map() -> None:
    model = load("resnet18", weights=None, include_top=False, pooling="none")
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 512, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pooling": "none"}, "include_top=False"),
        ({"pooling": "cls"}, "'avg', 'max' or 'gem'"),
        ({"max_length": 5}, "reads images"),
        ({"domain": "nlp"}, "domain='vision'"),
        ({"device": "cuda:99"}, "device"),
        ({"weights": 5}, "weights=5"),
    ],
)
def test_arguments_that_cannot_work(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_pretrained_model("resnet18", **({"weights": None, "device": "cpu"} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_length": 513}, "positions for 512 tokens; use at most 512"),
        ({"max_length": 2}, "at least 3"),
        ({"max_length": True}, "at least 3"),
        ({"input_shape": (224, 224, 3)}, "reads text"),
        ({"domain": "vision"}, "domain='nlp'"),
    ],
)
def test_text_arguments_that_cannot_work(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load("minilm", weights=None, **arguments)


@pytest.mark.parametrize(("name", "limit"), [("roberta-base", 512), ("bert-base-uncased", 512)])
def test_positions_come_from_the_configuration(tmp_path: Path, name: str, limit: int) -> None:
    """RoBERTa counts positions from its padding token on, so 514 embeddings reach 512 tokens."""
    write_text_checkpoint(tmp_path, name.split("-")[0])
    assert load(name, weights=tmp_path).preprocess.max_length == limit
    assert load(name, weights=tmp_path, max_length=7).preprocess.max_length == 7
    with pytest.raises(ConfigurationError, match=f"at most {limit}"):
        load(name, weights=tmp_path, max_length=limit + 1)


# --- names that do not exist ---


def test_unknown_model_lists_near_names() -> None:
    with pytest.raises(UnknownNameError, match="resnet50.*list_models"):
        load("resnet51")


def test_unknown_weights_list_the_known() -> None:
    with pytest.raises(UnknownNameError, match="imagenet.*weights=PATH|imagenet.*a path"):
        load("resnet50", weights="imagnet")
    with pytest.raises(UnknownNameError, match="bert-base-uncased"):
        load("bert-base-uncased", weights="imagenet")


def test_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match="nowhere"):
        load("resnet18", weights=tmp_path / "nowhere")
    with pytest.raises(WeightsNotFoundError, match=r"nowhere\.pth"):
        load("resnet18", weights="nowhere.pth")


def test_licence_must_be_accepted(resnet_file: Path) -> None:
    free = ARCHITECTURES["resnet18"].weights["a1"]
    from neurenix.models import PathSource

    bound = dataclasses.replace(
        free, name="bound", licence="cc-by-nc-4.0", commercial_use=False, source=PathSource(str(resnet_file))
    )
    with mock.patch.dict(ARCHITECTURES["resnet18"].weights, {"bound": bound}):
        with pytest.raises(LicenceError, match=r"cc-by-nc-4\.0.*accept_licence=True.*imagenet"):
            load("resnet18", weights="bound")
        assert load("resnet18", weights="bound", accept_licence=True).weights_info.licence == "cc-by-nc-4.0"


# --- the load report ---


def test_another_architecture_is_an_error(resnet_file: Path) -> None:
    with pytest.raises(WeightsMismatchError, match=r"Only .*% of resnet50 would be pretrained.*layer4"):
        load("resnet50", weights=resnet_file)


def test_another_prefix_is_an_error(resnet_file: Path, tmp_path: Path) -> None:
    state = {f"backbone.{name}": tensor for name, tensor in load_file(resnet_file).items()}
    save_file(state, tmp_path / "prefixed.safetensors")
    with pytest.raises(WeightsMismatchError, match=r"Only 0\.0%.*backbone\."):
        load("resnet18", weights=tmp_path / "prefixed.safetensors")


def test_the_least_share_can_be_lowered(resnet_file: Path, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in load_file(resnet_file).items() if not name.startswith("layer4")}
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(WeightsMismatchError, match=r"layer4\.1\.conv"):
        load("resnet18", weights=tmp_path / "part.safetensors")
    model = load("resnet18", weights=tmp_path / "part.safetensors", minimum_pretrained=0.2)
    report = model.load_report
    assert {name.split(".")[1] for name in report.names("new")} == {"layer4"}
    whole = sum(tensor.numel() for tensor in model.trunk.state_dict().values())
    missing = sum(tensor.numel() for tensor in model.trunk.layer4.state_dict().values())
    assert report.pretrained_share == pytest.approx(1 - missing / whole)
    assert "new" in str(report)


def test_every_tensor_has_one_line_in_the_report(resnet_file: Path) -> None:
    model = load("resnet18", weights=resnet_file, include_top=False)
    assert {tensor.name for tensor in model.load_report.tensors} == {
        *(f"trunk.{name}" for name in model.trunk.state_dict()),
        "head.weight",
        "head.bias",
    }
    assert model.load_report.names("dropped") == ["head.bias", "head.weight"]


def test_file_that_mixes_names_is_refused(resnet_file: Path, tmp_path: Path) -> None:
    write_text_checkpoint(tmp_path, "bert")
    state = load_file(tmp_path / "model.safetensors")
    state["embeddings.word_embeddings.weight"] = state["bert.embeddings.word_embeddings.weight"] + 1
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsMismatchError, match="mixes naming schemes"):
        load("bert-base-uncased", weights=tmp_path)


# --- what stays with the model ---


def test_source_rebuilds_the_model(resnet_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(resnet_file.parent)
    shape = (64, 64, 1)
    model = load("resnet18", weights="model.safetensors", input_shape=shape, include_top=False, pooling="max")
    assert model.source["weights"] == str(resnet_file)
    found = ("weights_sha256", "revision", "configuration")
    arguments = {key: value for key, value in model.source.items() if key not in found}
    again = load_pretrained_model(**arguments, device="cpu")
    assert again.source == model.source
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_random_weights_follow_the_callers_seed() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = load("resnet18", weights=None)
        torch.manual_seed(5)
        second = load("resnet18", weights=None)
    assert all(torch.equal(second.state_dict()[name], tensor) for name, tensor in first.state_dict().items())
    assert first.source["weights"] is None and first.source["weights_sha256"] is None
    assert first.weights_info is None


def test_timm_configuration_beside_the_file_sets_the_preprocessing(resnet_file: Path, tmp_path: Path) -> None:
    stated = {"input_size": [3, 160, 160], "mean": [0.5] * 3, "std": [0.25] * 3, "crop_pct": 0.95}
    stated["interpolation"] = "bicubic"
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": stated}))
    (tmp_path / "model.safetensors").write_bytes(resnet_file.read_bytes())
    spec = load("resnet18", weights=tmp_path).preprocess.spec
    assert (spec.size, spec.mean, spec.std) == ((160, 160), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert (spec.crop, spec.interpolation) == (0.95, "bicubic")


def test_repository_of_another_owner(hub: LocalHub) -> None:
    write_timm_checkpoint_as(hub, "somebody/finetuned", classes=3)
    model = load("resnet18", weights="somebody/finetuned")
    assert model.head.out_features == 3
    assert model.weights_info.source.repository == "somebody/finetuned"


def write_timm_checkpoint_as(hub: LocalHub, repository: str, classes: int) -> None:
    (hub.folder / repository).mkdir(parents=True)
    write_timm_checkpoint(hub.folder / repository, "resnet18", classes=classes)
    hub.commit(repository)
