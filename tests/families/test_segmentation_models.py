"""DeepLabV3, U-Net, DeepLabV3+ and CRAFT: real file layouts, and the outputs of the libraries or of the papers."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.families.segmentation_checkpoints import brain_state
from torch import Tensor, nn
from torch.nn import functional

from neurenix.errors import (
    ConfigurationError,
    DamagedFileError,
    InputMismatchError,
    LabelMismatchError,
    WeightsMismatchError,
)
from neurenix.models import ARCHITECTURES, BuildOptions, PretrainedModel, display_name, match_layers
from neurenix.nn import TaskHead
from neurenix.transfer import Finetuner, LoraTuner, load_pretrained_model

NAMES = [name for name, architecture in ARCHITECTURES.items() if "segmentation" in architecture.tasks]
OF_SMP = ("unet-", "deeplabv3plus-")
# torchvision's own counts, and those of the published networks
PARAMETERS = {
    "deeplabv3_resnet50": 42_004_074,
    "deeplabv3_resnet101": 60_996_202,
    "deeplabv3_mobilenet_v3_large": 11_029_328,
    "unet-brain-mri": 7_763_041,
    "craft": 20_770_466,
}
MOBILE = "deeplabv3_mobilenet_v3_large"


def images(count: int = 2, height: int = 64, width: int = 96, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 4 - 2


def masks(classes: int, count: int = 2, height: int = 64, width: int = 96) -> Tensor:
    found = torch.randint(classes, (count, height, width), generator=torch.Generator().manual_seed(2))
    found[:, :8] = 255
    return found


def filled(module: nn.Module, seed: int = 3) -> nn.Module:
    """Every number random, statistics too, so that none can be forgotten unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                wide = 0.1 if tensor.ndim > 1 else 0.3
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * wide / max(1, tensor[0].numel()) ** 0.25)
                if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                    tensor.abs_().add_(0.5)
    return module.eval()


def needs(name: str) -> None:
    if name.startswith(OF_SMP) and name != "unet-brain-mri":
        pytest.importorskip("segmentation_models_pytorch")


@pytest.fixture(scope="module", params=NAMES)
def skeleton(request: pytest.FixtureRequest) -> PretrainedModel:
    needs(request.param)
    architecture = ARCHITECTURES[request.param]
    with torch.device("meta"):
        parts = architecture.build(BuildOptions(num_classes=architecture.outputs))
    from neurenix.nn import Pool

    return PretrainedModel(
        trunk=parts.trunk,
        pool=Pool("avg"),
        head=parts.head,
        feature_size=parts.feature_size,
        stages=architecture.stages,
        head_name=architecture.head_name,
        architecture=architecture,
    )


def test_sizes_stages_and_shapes_are_the_published_ones(skeleton: PretrainedModel) -> None:
    name = skeleton.architecture.name
    if name in PARAMETERS:
        assert sum(parameter.numel() for parameter in skeleton.parameters()) == PARAMETERS[name]
    stages = tuple(match_layers(skeleton, list(skeleton.stages)))
    assert [display_name(skeleton, stage) for stage in stages] == list(skeleton.stages)
    assert [x for x, _ in skeleton.trunk.named_parameters() if not f"trunk.{x}".startswith(stages)] == []
    for pattern in skeleton.architecture.roles.values():
        assert match_layers(skeleton, pattern)
    batch = torch.rand(2, 3, 64, 96, device="meta")
    maps = skeleton.eval().features(batch)
    sizes = [feature.shape[-2:].numel() for feature in maps]
    assert sizes == sorted(sizes, reverse=True)
    assert maps[-1].shape[1] == skeleton.feature_size
    assert skeleton(batch).shape == (2, skeleton.architecture.outputs, 64, 96)


@pytest.fixture(scope="module")
def deeplab() -> nn.Module:
    from torchvision.models import segmentation

    return filled(segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, aux_loss=True))


@pytest.fixture(scope="module")
def deeplab_file(deeplab: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("deeplab") / "deeplabv3.pth"
    torch.save(deeplab.state_dict(), path)
    return path


@torch.inference_mode()
def test_deeplab_equals_torchvision_bit_by_bit(deeplab: nn.Module, deeplab_file: Path) -> None:
    ours = load_pretrained_model(MOBILE, weights=deeplab_file, device="cpu")
    assert {fate.fate for fate in ours.load_report.tensors} == {"matched"}
    expected = deeplab(images())
    assert torch.equal(ours(images()), expected["out"])
    assert torch.equal(ours({"images": images(), "image_sizes": torch.tensor([[64, 96]] * 2)}), expected["out"])
    shares = ours.head.losses(ours.features(images()), images(), masks(21))
    for share, weight, logits in zip(shares.values(), (1, 0.5), expected.values(), strict=True):
        expected_share = weight * functional.cross_entropy(logits, masks(21), ignore_index=255)
        assert torch.allclose(share, expected_share, rtol=1e-5)
    assert (
        load_pretrained_model(MOBILE, weights=deeplab_file, include_top=False, device="cpu")(images()).shape[1] == 960
    )


def test_deeplab_keeps_the_published_layout() -> None:
    """The names of the file, of which torchvision's class with both classifiers has exactly these."""
    from torchvision.models import segmentation

    from neurenix.models.vision.deeplab import PUBLISHED, convert

    for name in PUBLISHED:
        with torch.device("meta"):
            library = getattr(segmentation, name)(weights=None, weights_backbone=None, aux_loss=True)
            parts = ARCHITECTURES[name].build(BuildOptions(num_classes=21))
        ours = {f"trunk.{key}" for key in parts.trunk.state_dict()} | {f"head.{key}" for key in parts.head.state_dict()}
        assert set(convert(library.state_dict())) == ours
        assert convert(dict.fromkeys(ours)) == dict.fromkeys(ours)
        weights = getattr(segmentation, _class_of(name)).DEFAULT
        record = ARCHITECTURES[name].weights["coco"]
        assert record.source.url == weights.url
        assert weights.url.endswith(f"-{record.sha256}.pth")
        assert (
            sum(x.numel() for part in (parts.trunk, parts.head) for x in part.parameters())
            == weights.meta["num_params"]
        )


def _class_of(name: str) -> str:
    return {"deeplabv3_mobilenet_v3_large": "DeepLabV3_MobileNet_V3_Large_Weights"}.get(
        name, f"DeepLabV3_ResNet{name[-3:].removeprefix('t')}_Weights"
    )


def test_deeplab_for_classes_of_ones_own(deeplab_file: Path) -> None:
    model = load_pretrained_model(MOBILE, weights=deeplab_file, device="cpu")
    head = model.head.for_classes(3)
    assert head.num_outputs == 3 and model.head.num_outputs == 21
    kept = [name for name in head.state_dict() if not name.startswith(("classifier.4", "aux_classifier.4"))]
    assert all(torch.equal(head.state_dict()[name], model.head.state_dict()[name]) for name in kept)
    assert head.aux_classifier[-1].out_channels == 3
    for wrong in (0, -1, True, 2.5):
        with pytest.raises(ConfigurationError, match="num_outputs"):
            model.head.for_classes(wrong)
    with pytest.raises(LabelMismatchError, match=r"\[3\].*0 to 2"):
        head.losses(model.features(images()), images(), torch.full((2, 64, 96), 3))
    with pytest.raises(LabelMismatchError, match="of the size of the images"):
        head.losses(model.features(images()), images(), masks(3)[:, :32])
    unknown = head.losses(model.features(images()), images(), torch.full((2, 64, 96), 255))
    assert all(float(share.detach()) == 0 for share in unknown.values())


def test_deeplab_of_a_file_without_second_classifier(deeplab: nn.Module, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in deeplab.state_dict().items() if not name.startswith("aux")}
    torch.save({"model": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "own.pth")
    model = load_pretrained_model(MOBILE, weights=tmp_path / "own.pth", device="cpu")
    assert {fate.fate for fate in model.load_report.tensors} == {"matched"}
    assert list(model.head.losses(model.features(images()), images(), masks(21))) == ["pixels"]


def test_damaged_and_foreign_files_are_named(deeplab: nn.Module, deeplab_file: Path, tmp_path: Path) -> None:
    content = deeplab_file.read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedFileError):
        load_pretrained_model(MOBILE, weights=tmp_path / "cut.pth", device="cpu")
    swapped = {name.replace("backbone", "spine"): tensor for name, tensor in deeplab.state_dict().items()}
    torch.save(swapped, tmp_path / "swapped.pth")
    with pytest.raises(WeightsMismatchError, match="backbone"):
        load_pretrained_model(MOBILE, weights=tmp_path / "swapped.pth", device="cpu")
    shapes = {name: tensor[..., None] if tensor.ndim == 4 else tensor for name, tensor in deeplab.state_dict().items()}
    torch.save(shapes, tmp_path / "shapes.pth")
    with pytest.raises(WeightsMismatchError, match="in the file"):
        load_pretrained_model(MOBILE, weights=tmp_path / "shapes.pth", device="cpu")


def test_wrong_hash_is_an_error(deeplab_file: Path) -> None:
    from neurenix.models.sources import read_state_dict

    with pytest.raises(DamagedFileError):
        read_state_dict(deeplab_file, sha256=ARCHITECTURES[MOBILE].weights["coco"].sha256)


# --- the U-Net for brain MRI -----------------------------------------------------------------------------------


def brain_reference(state: dict[str, Tensor], batch: Tensor) -> Tensor:
    """Figure 1 of Ronneberger et al. with norms, from the file's tensors alone -> probabilities."""

    def block(folder: str, name: str, x: Tensor) -> Tensor:
        for place in (1, 2):
            x = functional.conv2d(x, state[f"{folder}.{name}conv{place}.weight"], padding=1)
            mean, variance, scale, shift = (
                state[f"{folder}.{name}norm{place}.{part}"][None, :, None, None]
                for part in ("running_mean", "running_var", "weight", "bias")
            )
            x = ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)
        return x

    def halved(x: Tensor) -> Tensor:
        return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))

    down = {0: batch}
    for level in (1, 2, 3, 4):
        down[level] = block(f"encoder{level}", f"enc{level}", halved(down[level - 1]) if level > 1 else batch)
    up = block("bottleneck", "bottleneck", halved(down[4]))
    for level in (4, 3, 2, 1):
        larger = functional.conv_transpose2d(up, state[f"upconv{level}.weight"], state[f"upconv{level}.bias"], stride=2)
        up = block(f"decoder{level}", f"dec{level}", torch.cat([larger, down[level]], 1))
    logits = torch.einsum("ok,nkhw->nohw", state["conv.weight"][:, :, 0, 0], up) + state["conv.bias"][:, None, None]
    return 1 / (1 + (-logits).exp())


@torch.inference_mode()
def test_brain_unet_is_the_published_network(tmp_path: Path) -> None:
    torch.save(brain_state(), tmp_path / "unet.pt")
    model = load_pretrained_model("unet-brain-mri", weights=tmp_path / "unet.pt", device="cpu")
    assert {fate.fate for fate in model.load_report.tensors} == {"matched"}
    assert torch.allclose(model(images()).sigmoid(), brain_reference(brain_state(), images()), atol=1e-5)
    assert [tuple(x.shape[1:]) for x in model.features(images())] == [
        *((4, 64, 96), (8, 32, 48), (16, 16, 24), (32, 8, 12), (64, 4, 6))
    ]
    assert model.feature_size == 64
    with pytest.raises(InputMismatchError, match="multiples of 16: 64 x 112"):
        model(images(width=100))
    record = ARCHITECTURES["unet-brain-mri"].weights["brain-mri"]
    assert record.sha256 == "e012d006" and record.source.url.endswith("unet-e012d006.pt")


def test_brain_unet_dice_is_the_formula(tmp_path: Path) -> None:
    torch.save(brain_state(), tmp_path / "unet.pt")
    model = load_pretrained_model("brain-unet", weights=tmp_path / "unet.pt", device="cpu")
    wanted = masks(2)
    share = model.head.losses(model.features(images()), images(), wanted)["dice"]
    pairs = [
        (float(p), int(t))
        for p, t in zip(model(images()).detach().sigmoid().flatten(), wanted.flatten(), strict=True)
        if int(t) != 255
    ]
    overlap, sums = sum(p * t for p, t in pairs), sum(p + t for p, t in pairs)
    assert float(share.detach()) == pytest.approx(1 - (2 * overlap + 1) / (sums + 1), rel=1e-4)
    head = model.head.for_classes(4)
    assert list(head.losses(model.features(images()), images(), masks(4))) == ["pixels"]


# --- segmentation-models-pytorch -------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[("DeepLabV3Plus", "mobilenet_v2"), ("Unet", "efficientnet-b0")])
def smp_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, nn.Module, Path]:
    smp = pytest.importorskip("segmentation_models_pytorch")
    kind, encoder = request.param
    sizes = {"decoder_channels": [32, 16, 16, 8, 8]} if kind == "Unet" else {"decoder_channels": 32}
    library = filled(getattr(smp, kind)(encoder, encoder_weights=None, classes=3, **sizes))
    folder = tmp_path_factory.mktemp("smp")
    library.save_pretrained(folder)
    return f"{kind.lower()}-{encoder}", library, folder


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(OF_SMP) and name != "unet-brain-mri"])
def test_smp_names_are_the_librarys(name: str) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    from segmentation_models_pytorch.encoders import encoders

    from neurenix.models.vision._smp import convert

    kind, encoder = name.split("-", 1)
    with torch.device("meta"):
        library = {"unet": smp.Unet, "deeplabv3plus": smp.DeepLabV3Plus}[kind](encoder, encoder_weights=None)
        parts = ARCHITECTURES[name].build(BuildOptions(num_classes=1))
    ours = {f"trunk.{key}" for key in parts.trunk.state_dict()} | {f"head.{key}" for key in parts.head.state_dict()}
    unused = {
        key
        for key in convert(library.state_dict())
        if key.startswith(("trunk.encoder._conv_head", "trunk.encoder._bn1"))
    }
    assert set(convert(library.state_dict())) - unused == ours
    assert set(convert(library.encoder.state_dict())) - unused == {key for key in ours if key.startswith("trunk.")}
    assert convert(dict.fromkeys(ours)) == dict.fromkeys(ours)
    source = ARCHITECTURES[name].weights["imagenet"].source
    published = encoders[encoder]["pretrained_settings"]["imagenet"]
    assert (source.repository, source.revision) == (published["repo_id"], published["revision"])


@torch.inference_mode()
def test_smp_folders_load_whole_and_answer_as_the_library(smp_model: tuple[str, nn.Module, Path]) -> None:
    name, library, folder = smp_model
    model = load_pretrained_model(name, weights=folder, device="cpu")
    unused = {fate.name for fate in model.load_report.tensors if fate.fate != "matched"}
    assert all(name.startswith(("trunk.encoder._conv_head", "trunk.encoder._bn1")) for name in unused)
    assert torch.equal(model(images()), library(images()))
    assert model.head.num_outputs == 3
    with pytest.raises(WeightsMismatchError, match="under the name of its own"):
        load_pretrained_model("unet-resnet50", weights=folder, device="cpu")


def test_smp_encoder_weights_pretrain_the_trunk_alone(smp_model: tuple[str, nn.Module, Path], tmp_path: Path) -> None:
    """The layout of smp-hub: the encoder's own names, the classifier's among them."""
    name, library, _ = smp_model
    encoder = {key: tensor.clone() for key, tensor in library.encoder.state_dict().items()}
    extra = {"resnet34": "fc.weight", "mobilenet_v2": "classifier.1.weight", "efficientnet-b0": "_fc.weight"}
    save_file({**encoder, extra[name.split("-", 1)[1]]: torch.rand(4, 4)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"mean": [0.485, 0.456, 0.406], "input_range": [0, 1]}))
    model = load_pretrained_model(name, weights=tmp_path, device="cpu")
    assert model.load_report.pretrained_share == 1
    assert {x.split(".")[0] for x in model.load_report.names("new")} == {"head"}
    assert isinstance(model.head, TaskHead) and model.head.num_outputs == 1
    assert torch.equal(model.features(images())[-1], library.encoder(images())[-1])
    bare = load_pretrained_model(name, weights=tmp_path, include_top=False, device="cpu")
    assert bare(images()).shape == (2, bare.feature_size)


def test_smp_configurations_are_data(smp_model: tuple[str, nn.Module, Path], tmp_path: Path) -> None:
    name, _, folder = smp_model
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    for change in ({"decoder_channels": "many"}, {"encoder_depth": 99}, {"in_channels": True}):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(DamagedFileError, match=next(iter(change))):
            load_pretrained_model(name, weights=tmp_path, device="cpu")


# --- CRAFT -----------------------------------------------------------------------------------------------------


def craft_state(seed: int = 6) -> dict[str, Tensor]:
    with torch.no_grad():
        parts = ARCHITECTURES["craft"].build(BuildOptions(num_classes=2))
        filled(parts.trunk, seed), filled(parts.head, seed + 1)
    return {**parts.trunk.state_dict(), **parts.head.state_dict()}


def craft_reference(state: dict[str, Tensor], batch: Tensor) -> Tensor:
    """VGG16-BN's list of layers by their numbers, and the decoder, from the file's tensors -> half-size scores."""
    maps, x = {}, batch
    for number, places in {1: range(12), 2: range(12, 19), 3: range(19, 29), 4: range(29, 39)}.items():
        for place in places:
            x = craft_layer(state, f"basenet.slice{number}.{place}", x, pools=place in (6, 13, 23, 33))
        maps[number] = x if number == 4 else x.clamp(min=0)
    x = functional.max_pool2d(x, 3, stride=1, padding=1)
    x = convolved(state, "basenet.slice5.2", convolved(state, "basenet.slice5.1", x, padding=6, dilation=6))
    for number in (1, 2, 3, 4):
        beside = maps[5 - number]
        x = torch.cat([functional.interpolate(x, size=beside.shape[2:], mode="bilinear"), beside], 1)
        for place, padding in ((0, 0), (3, 1)):
            x = convolved(state, f"upconv{number}.conv.{place}", x, padding=padding)
            x = craft_layer(state, f"upconv{number}.conv.{place + 1}", x).clamp(min=0)
    for place, padding in ((0, 1), (2, 1), (4, 1), (6, 0)):
        x = convolved(state, f"conv_cls.{place}", x, padding=padding).clamp(min=0)
    return convolved(state, "conv_cls.8", x)


def convolved(state: dict[str, Tensor], name: str, x: Tensor, **how: int) -> Tensor:
    return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)


def craft_layer(state: dict[str, Tensor], name: str, x: Tensor, pools: bool = False) -> Tensor:
    """What the file holds under a name: a norm, a 3x3 convolution, or nothing, for a pooling or a ReLU."""
    if f"{name}.running_var" in state:
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        mean, variance, scale, shift = (part[None, :, None, None] for part in parts)
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift
    if f"{name}.weight" in state:
        return convolved(state, name, x, padding=1)
    return functional.max_pool2d(x, 2) if pools else x.clamp(min=0)


@torch.inference_mode()
def test_craft_strict_loads_the_published_layout(tmp_path: Path) -> None:
    state = craft_state()
    assert len(state) == 154
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "craft.pth")
    model = load_pretrained_model("craft", weights=tmp_path / "craft.pth", device="cpu")
    assert {fate.fate for fate in model.load_report.tensors} == {"matched"}
    small = model.head.small(model.features(images()))
    assert torch.allclose(small, craft_reference(state, images()), rtol=1e-3, atol=1e-4)
    assert model(images()).shape == (2, 2, 64, 96)
    scores = model.head.losses(model.features(images()), images(), torch.rand(2, 2, 64, 96))
    assert list(scores) == ["scores"]
    assert list(model.head.for_classes(3).losses(model.features(images()), images(), masks(3))) == ["pixels"]


@pytest.mark.real_weights
@torch.inference_mode()
def test_craft_finds_text_and_no_text() -> None:
    """Share of the pixels above .4 as measured with these weights on printed text; none on photographs."""
    pytest.importorskip("easyocr_en_models")
    skimage = pytest.importorskip("skimage")
    model = load_pretrained_model("craft", device="cpu")
    shares = {}
    for name in ("page.png", "text.png", "brick.png", "chelsea.png"):
        image = Image.open(Path(skimage.__file__).parent / "data" / name)
        image = image if name in ("page.png", "text.png") else image.crop((0, 0, 192, 192))
        inputs = {key: x[None] for key, x in model.preprocess(image).items()}
        height, width = inputs["image_sizes"][0].tolist()
        scores = model.head.small(model.features(inputs))[0, 0, : height // 2, : width // 2]
        shares[name] = float((scores > 0.4).float().mean())
    assert shares["page.png"] == pytest.approx(0.151, abs=0.002)
    assert shares["text.png"] == pytest.approx(0.017, abs=0.002)
    assert shares["brick.png"] == shares["chelsea.png"] == 0


# --- all of them -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unet-brain-mri", MOBILE])
def test_one_step_lowers_the_loss_and_saving_keeps_the_answers(name: str, tmp_path: Path, deeplab_file: Path) -> None:
    if name == "unet-brain-mri":
        torch.save(brain_state(), tmp_path / "file.pth")
    model = load_pretrained_model(name, weights=deeplab_file if name == MOBILE else tmp_path / "file.pth", device="cpu")
    model.replace_head(model.head.for_classes(2))
    batch, wanted = images(), masks(2)
    before = copy.deepcopy(model)(batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    values = []
    for _ in range(2):
        loss = sum(model.head.losses(model.features(batch), batch, wanted).values())
        values.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert values[1] < values[0]
    assert not torch.equal(model(batch), before)
    save_file({key: x.contiguous() for key, x in model.state_dict().items()}, tmp_path / "saved.safetensors")
    again = load_pretrained_model(name, weights=tmp_path / "saved.safetensors", device="cpu")
    assert {fate.fate for fate in again.load_report.tensors} == {"matched"}
    assert torch.equal(again(batch), model(batch))


def test_tuners_find_their_places(tmp_path: Path, deeplab_file: Path) -> None:
    torch.save(brain_state(), tmp_path / "file.pth")
    for name, file in (("unet-brain-mri", tmp_path / "file.pth"), (MOBILE, deeplab_file)):
        model = load_pretrained_model(name, weights=file, device="cpu")
        LoraTuner(model, num_classes=3)
        tuned = Finetuner(model, num_classes=3, freeze_layers=[model.stages[0]])
        assert tuned.model.head.num_outputs == 3
