"""What every architecture in the registry promises; the registry is the test plan.

What is special to a family (its published keys, its front end, its head) is in tests/families.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.local_hub import write_text_checkpoint
from torch import Tensor, nn

from neurenix.models import (
    ARCHITECTURES,
    Architecture,
    BuildOptions,
    PretrainedModel,
    display_name,
    match_layers,
)
from neurenix.models.nlp._encoder import build_encoder
from neurenix.nn import Pool, TaskHead
from neurenix.transfer import load_pretrained_model
from neurenix.vision import ImageInput

VISION = [
    name
    for name, architecture in ARCHITECTURES.items()
    if isinstance(architecture.input, ImageInput) and "classification" in architecture.tasks
]
TEXT = [name for name, architecture in ARCHITECTURES.items() if getattr(architecture.build, "func", 0) is build_encoder]
TOO_BIG_TO_RUN = ("resnet101", "resnet152", "vit-base", "vit-large", "b4", "b5", "b6", "b7")
RUN = [name for name in VISION if not any(part in name for part in TOO_BIG_TO_RUN)]
SIDE = 64


def on_meta(architecture: Architecture) -> PretrainedModel:
    """The published architecture with seven outputs, without memory for its numbers."""
    with torch.device("meta"):
        parts = architecture.build(BuildOptions(num_classes=7))
    return PretrainedModel(
        trunk=parts.trunk,
        pool=Pool("avg", channels_last=parts.channels_last),
        head=parts.head,
        feature_size=parts.feature_size,
        stages=parts.stages or architecture.stages,
        head_name=architecture.head_name,
        architecture=architecture,
    )


@pytest.fixture(scope="module", params=ARCHITECTURES)
def skeleton(request: pytest.FixtureRequest) -> PretrainedModel:
    return on_meta(ARCHITECTURES[request.param])


def test_stages_are_real_and_in_order(skeleton: PretrainedModel) -> None:
    assert skeleton.stages == skeleton.architecture.stages
    chosen = [match_layers(skeleton, stage) for stage in skeleton.stages]
    assert [display_name(skeleton, names[0]) for names in chosen] == list(skeleton.stages)
    assert all(len(names) == 1 for names in chosen)
    order = [name for name, _ in skeleton.named_modules()]
    modules = [names[0] for names in chosen if names[0] in order]
    assert modules == sorted(modules, key=order.index)


def test_stages_cover_every_parameter_of_the_trunk(skeleton: PretrainedModel) -> None:
    stages = tuple(match_layers(skeleton, list(skeleton.stages)))
    names = [f"trunk.{name}" for name, _ in skeleton.trunk.named_parameters()]
    assert [name for name in names if not name.startswith(stages)] == []


def test_roles_name_real_layers(skeleton: PretrainedModel) -> None:
    assert skeleton.architecture.roles.keys() >= {"stem"}
    for pattern in skeleton.architecture.roles.values():
        found = dict(skeleton.named_modules())
        assert all(isinstance(found[name], nn.Module) for name in match_layers(skeleton, pattern))


def test_feature_size_fits_the_head(skeleton: PretrainedModel) -> None:
    assert skeleton.feature_size > 0
    if isinstance(skeleton.head, TaskHead):
        assert skeleton.head.task in skeleton.architecture.tasks
        assert skeleton.head.num_outputs > 0
        return
    linear = [layer for layer in skeleton.head.modules() if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear[:1]] == ([skeleton.feature_size] if linear else [])
    assert [layer.out_features for layer in linear[-1:]] == ([7] if linear else [])
    assert bool(linear) or not isinstance(skeleton.architecture.input, ImageInput)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_records_are_complete(name: str) -> None:
    architecture = ARCHITECTURES[name]
    assert architecture.name == name
    assert architecture.licence and architecture.paper
    assert architecture.default_weights in architecture.weights
    assert architecture.tasks and architecture.domain in ("vision", "nlp", "audio")
    for key, record in architecture.weights.items():
        assert record.name == key
        assert record.licence and record.paper
        assert record.commercial_use == (not re.search("noncommercial|-nc-", record.licence.lower()))
        assert type(record.input) is type(architecture.input)


@pytest.fixture(scope="module", params=RUN)
def network(request: pytest.FixtureRequest) -> PretrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_pretrained_model(request.param, weights=None, input_shape=(SIDE, SIDE, 3), device="cpu")


def images(channels: int = 3) -> Tensor:
    return torch.rand(2, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_forward_with_top(network: PretrainedModel) -> None:
    assert not network.training
    assert network(images()).shape == (2, 1000)
    assert network.embed(images()).shape == (2, network.feature_size)
    assert network.categories == ()  # a random head has no names
    assert set(fate.fate for fate in network.load_report.tensors) == {"new"}


@torch.inference_mode()
def test_deepcopy_is_equal_and_apart(network: PretrainedModel) -> None:
    twin = copy.deepcopy(network)
    assert torch.equal(twin(images()), network(images()))
    next(twin.parameters()).add_(1)
    assert not torch.equal(next(twin.parameters()), next(network.parameters()))


@torch.inference_mode()
def test_round_trip_through_a_path(network: PretrainedModel, tmp_path: Path) -> None:
    file = tmp_path / "saved.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, file)
    again = load_pretrained_model(network.name, weights=file, input_shape=(SIDE, SIDE, 3), device="cpu")
    assert again.load_report.pretrained_share == 1
    assert {fate.fate for fate in again.load_report.tensors} == {"matched"}
    assert torch.equal(again(images()), network(images()))


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", ["resnet18", "efficientnet-b0", "vit-tiny-patch16-224", "mobilenetv2"])
@torch.inference_mode()
def test_other_channels_without_top(name: str, channels: int) -> None:
    model = load_pretrained_model(
        name, weights=None, include_top=False, input_shape=(SIDE, SIDE, channels), device="cpu"
    )
    assert isinstance(model.head, nn.Identity)
    assert model.preprocess.spec.channels == channels
    assert model(images(channels)).shape == (2, model.feature_size)


@torch.inference_mode()
def test_torchvision_with_one_channel() -> None:
    model = load_pretrained_model(
        "torchvision/efficientnet-b0", weights=None, input_shape=(SIDE, SIDE, 1), device="cpu"
    )
    assert model(images(1)).shape == (2, 1000)


def randomised(network: nn.Module) -> nn.Module:
    """Random weights, random norm statistics, in evaluation mode."""
    generator = torch.Generator().manual_seed(2)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return network.eval()


@pytest.mark.parametrize("name", RUN)
@torch.inference_mode()
def test_equal_to_the_library_bit_by_bit(name: str, tmp_path: Path) -> None:
    """timm's or torchvision's own class with the same weights: the independent implementation.

    The logits may differ in the last bits, because our pooling sums in another order.
    """
    library = randomised(library_network(name))
    file = tmp_path / "published.pth"
    torch.save(library.state_dict(), file)
    ours = load_pretrained_model(name, weights=str(file), device="cpu")
    height, width = ours.preprocess.spec.size
    batch = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(3))
    assert ours.load_report.pretrained_share == 1
    unpooled = library.features if name.startswith("torchvision/") else library.forward_features
    assert torch.equal(ours.features(batch), unpooled(batch))
    torch.testing.assert_close(ours(batch), library(batch), rtol=1e-5, atol=1e-5)


def library_network(name: str) -> nn.Module:
    import timm
    import torchvision

    if name.startswith("torchvision/"):
        return torchvision.models.get_model(name.split("/")[1].replace("-", "_"), weights=None)
    build = ARCHITECTURES[name].build
    return timm.create_model(build.keywords["name"], pretrained=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a small published-looking checkpoint of a kind."""
    folders: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(kind)
            write_text_checkpoint(folders[kind], kind)
        return folders[kind]

    return folder


def tokens(vocabulary: int = 100) -> dict[str, Tensor]:
    """Two sequences of nine tokens, the second one padded after five."""
    ids = torch.randint(5, vocabulary, (2, 9), generator=torch.Generator().manual_seed(4))
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def kind_of(name: str) -> str:
    return "roberta" if "roberta" in name else "bert"


@pytest.mark.parametrize("name", TEXT)
@torch.inference_mode()
def test_text_loads_runs_copies_and_returns(name: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = checkpoint(kind_of(name))
    model = load_pretrained_model(name, weights=folder, device="cpu")
    assert model.load_report.pretrained_share == 1
    assert model.stages == ("embeddings", "encoder.layer.0", "encoder.layer.1")
    assert model(tokens()).shape == (2, 32) == (2, model.feature_size)
    assert model.features(tokens()).shape == (2, 9, 32)
    assert torch.equal(copy.deepcopy(model)(tokens()), model(tokens()))
    file = tmp_path / "saved.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, file)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    again = load_pretrained_model(name, weights=tmp_path / "saved.safetensors", device="cpu")
    assert {fate.fate for fate in again.load_report.tensors} == {"matched"}
    assert torch.equal(again(tokens()), model(tokens()))


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@torch.inference_mode()
def test_text_equals_the_library_bit_by_bit(kind: str, checkpoint: Callable[[str], Path]) -> None:
    import transformers

    folder = checkpoint(kind)
    library = transformers.AutoModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False)
    ours = load_pretrained_model(f"{kind}-base{'-uncased' * (kind == 'bert')}", weights=folder, device="cpu")
    assert torch.equal(ours.features(tokens()), library.eval()(**tokens()).last_hidden_state)


@torch.inference_mode()
def test_random_text_model_has_no_tokenizer() -> None:
    model = load_pretrained_model("all-minilm-l6-v2", weights=None, device="cpu")
    assert model.preprocess is None
    assert model.load_report.pretrained_share == 0
    assert model(tokens()).shape == (2, 384)
