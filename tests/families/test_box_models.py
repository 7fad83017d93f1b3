"""Faster R-CNN, Mask R-CNN and RetinaNet: torchvision's answers and losses, and the layouts of its files."""

from __future__ import annotations

import copy
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from neurenix.errors import ConfigurationError, DamagedFileError, LabelMismatchError, WeightsMismatchError
from neurenix.models import ARCHITECTURES, BuildOptions, PretrainedModel, display_name, match_layers
from neurenix.models.vision._boxes import convert
from neurenix.nn import Pool
from neurenix.transfer import Finetuner, LoraTuner, load_pretrained_model
from neurenix.vision import DetectionInput, DetectionPreprocess

NAMES = [name for name in ARCHITECTURES if name.startswith(("fasterrcnn", "maskrcnn", "retinanet"))]
FASTER, MASK, RETINA = "fasterrcnn_mobilenet_v3_large_320_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn"
SIZES = [(64, 96), (96, 64)]


def weights_of(name: str) -> Any:
    from torchvision.models import detection

    spelled = {plain.lower().removesuffix("_weights"): plain for plain in dir(detection) if plain.endswith("_Weights")}
    return getattr(detection, spelled[name]).DEFAULT


@pytest.mark.parametrize("name", NAMES)
def test_names_and_sizes_are_the_published_ones(name: str) -> None:
    from torchvision.models import detection

    architecture = ARCHITECTURES[name]
    with torch.device("meta"):
        parts = architecture.build(BuildOptions(num_classes=91))
        library = getattr(detection, name)(weights=None, weights_backbone=None)
    model = PretrainedModel(
        trunk=parts.trunk,
        pool=Pool("avg"),
        head=parts.head,
        feature_size=parts.feature_size,
        stages=architecture.stages,
        head_name="",
        architecture=architecture,
    )
    frozen = "v2" not in name
    kept = {key for key in convert(library.state_dict()) if not (frozen and is_count_of_body(key))}
    assert kept == set(model.state_dict())
    assert convert(dict.fromkeys(kept)) == dict.fromkeys(kept)
    learned = sum(parameter.numel() for parameter in model.parameters())
    assert learned == weights_of(name).meta["num_params"]
    record = architecture.weights["coco"]
    assert record.source.url == weights_of(name).url and record.source.url.endswith(f"-{record.sha256}.pth")
    stages = tuple(match_layers(model, list(model.stages)))
    assert [display_name(model, stage) for stage in stages] == list(model.stages)
    assert [x for x, _ in model.trunk.named_parameters() if not f"trunk.{x}".startswith(stages)] == []
    assert all(match_layers(model, pattern) for pattern in architecture.roles.values())
    assert model.head.num_outputs == 91


def is_count_of_body(key: str) -> bool:
    return key.startswith("trunk.backbone.body") and key.endswith("num_batches_tracked")


def filled(network: nn.Module) -> nn.Module:
    """Random numbers everywhere, and so different scores that some boxes pass every threshold."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.8, 1.2, generator=generator)
            elif "bbox" in name or (tensor.ndim == 1 and tensor.is_floating_point()):
                tensor.uniform_(-0.02, 0.02, generator=generator)
            elif "cls_" in name:
                tensor.normal_(0, 5 if "cls_score" in name else 0.4, generator=generator)
    return network.eval()


def build_library(name: str) -> nn.Module:
    """torchvision's model on images of the tests' size; its norms frozen as when it loads published weights."""
    from torchvision.models import detection
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    size = {"min_size": 64, "max_size": 96}
    if name == FASTER:
        from torchvision.models.detection.backbone_utils import mobilenet_backbone

        whole = getattr(detection, name)(weights=None, weights_backbone=None, **size)
        whole.backbone = mobilenet_backbone(
            backbone_name="mobilenet_v3_large",
            weights=None,
            fpn=True,
            norm_layer=FrozenBatchNorm2d,
            trainable_layers=6,
        )
        return filled(whole)
    frozen = partial(resnet_fpn_backbone, backbone_name="resnet50", weights=None, trainable_layers=5)
    norm = partial(FrozenBatchNorm2d, eps=0.0)
    if name == MASK:
        return filled(detection.MaskRCNN(frozen(norm_layer=norm), 91, **size))
    backbone = frozen(norm_layer=norm, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
    return filled(detection.RetinaNet(backbone, 91, **size))


def old_name(name: str) -> str:
    """What a file from before torchvision 0.13 calls it."""
    name = re.sub(r"^(backbone\.fpn\.\w+_blocks\.\d+)\.0\.", r"\1.", name)
    name = re.sub(r"^(rpn\.head\.conv)\.0\.0\.", r"\1.", name)
    name = re.sub(r"(mask_head)\.(\d)\.0\.", lambda match: f"{match[1]}.mask_fcn{int(match[2]) + 1}.", name)
    return re.sub(r"(_head\.conv)\.(\d)\.0\.", lambda match: f"{match[1]}.{2 * int(match[2])}.", name)


@pytest.fixture(scope="module", params=[FASTER, MASK, RETINA])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, PretrainedModel]:
    """torchvision's model and ours, loaded from a file of it with the names of the published files."""
    library = build_library(request.param)
    path = tmp_path_factory.mktemp("boxes") / f"{request.param}.pth"
    torch.save({old_name(name): tensor for name, tensor in library.state_dict().items()}, path)
    model = load_pretrained_model(request.param, weights=path, device="cpu")
    path.unlink()
    for network in (library, model.head):
        fewer(network)
    return library, model


def fewer(network: Any) -> None:
    """Let a network look at fewer regions than published, which takes as many seconds less."""
    if hasattr(network, "rpn"):
        network.rpn._post_nms_top_n = {"training": 100, "testing": 40}
        network.roi_heads.detections_per_img = 10


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(3, *size, generator=generator) for size in SIZES]


def inputs_of(library: nn.Module) -> dict[str, Tensor]:
    """What torchvision's own transform makes of the images."""
    listed, _ = library.transform(images())
    return {"images": listed.tensors, "image_sizes": torch.tensor(listed.image_sizes)}


def padded_targets(masks: bool = True) -> dict[str, Tensor]:
    boxes = torch.tensor([[[8.0, 8, 40, 40], [50, 10, 90, 60]], [[5, 20, 60, 90], [0, 0, 0, 0]]])
    targets = {"boxes": boxes, "labels": torch.tensor([[3, 17], [44, -1]])}
    if masks:
        targets["masks"] = torch.zeros(2, 2, 96, 96, dtype=torch.uint8)
        targets["masks"][:, :, 20:50, 20:50] = 1
    return targets


def listed_targets() -> list[dict[str, Tensor]]:
    targets = padded_targets()
    counts = [2, 1]
    return [{name: tensor[i][: counts[i]] for name, tensor in targets.items()} for i in range(2)]


def test_every_tensor_is_used(pair: tuple[nn.Module, PretrainedModel]) -> None:
    library, model = pair
    assert {fate.fate for fate in model.load_report.tensors} == {"matched"}
    batch = inputs_of(library)
    maps = model.features(batch)
    for ours, theirs in zip(maps, library.backbone(batch["images"]).values(), strict=True):
        assert torch.equal(ours, theirs)
    assert model.embed(batch).shape == (2, 256) == (2, model.feature_size)


@torch.inference_mode()
def test_detections_equal_torchvisions(pair: tuple[nn.Module, PretrainedModel]) -> None:
    library, model = pair
    expected = library(images())
    found = model(inputs_of(library))
    assert sum(len(answer["boxes"]) for answer in found) > 3
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            tensor = tensor[:, 0] if name == "masks" else tensor
            assert torch.allclose(ours[name], tensor, rtol=1e-5, atol=1e-4), name
    model.train()
    again = model(inputs_of(library))
    model.eval()
    assert torch.equal(again[0]["boxes"], found[0]["boxes"])


def test_losses_equal_torchvisions(pair: tuple[nn.Module, PretrainedModel]) -> None:
    library, model = pair
    batch = inputs_of(library)
    library.train()
    library.transform._skip_resize = True  # it would draw a size, and so the samplers other anchors
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(7)
        expected = library(images(), listed_targets())
        torch.manual_seed(7)
        shares = model.head.losses(model.features(batch), batch, padded_targets())
    library.eval()
    library.transform._skip_resize = False
    assert shares.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(shares[name], value, rtol=1e-5, atol=1e-6), name
    assert not model.head.training and not any(module.training for module in model.head.modules())


def test_own_classes_begin_with_nought(pair: tuple[nn.Module, PretrainedModel]) -> None:
    library, model = pair
    batch = inputs_of(library)
    head = model.head.for_classes(2)
    assert (head.num_outputs, model.head.num_outputs) == (2, 91)
    targets = {**padded_targets(), "labels": torch.tensor([[0, 1], [1, -1]])}
    with torch.no_grad():
        maps = model.features(batch)
        assert all(bool(share.isfinite()) for share in head.losses(maps, batch, targets).values())
        labels = torch.cat([answer["labels"] for answer in head(maps, batch)])
    assert set(labels.tolist()) <= {0, 1}
    kept = [name for name in head.state_dict() if not re.search("predictor|cls_logits", name)]
    assert len(kept) >= 8
    assert all(torch.equal(head.state_dict()[name], model.head.state_dict()[name]) for name in kept)
    with pytest.raises(ConfigurationError, match="num_outputs"):
        model.head.for_classes(0)


def test_wrong_targets_are_named(pair: tuple[nn.Module, PretrainedModel]) -> None:
    library, model = pair
    batch = inputs_of(library)
    with torch.no_grad():
        maps = model.features(batch)
    losses = partial(model.head.losses, maps, batch)
    with pytest.raises(LabelMismatchError, match="boxes, labels"):
        losses(torch.tensor([1, 2]))
    empty = padded_targets()
    empty["boxes"][0, 1] = torch.tensor([5.0, 5, 5, 9])
    with pytest.raises(LabelMismatchError, match="no area"):
        losses(empty)
    if model.name == MASK:
        with pytest.raises(LabelMismatchError, match="masks"):
            losses(padded_targets(masks=False))
    if model.name != RETINA:
        with pytest.raises(LabelMismatchError, match="background"):
            losses({**padded_targets(), "labels": torch.tensor([[0, 1], [1, -1]])})
    nothing = {**padded_targets(), "labels": torch.full((2, 2), -1)}
    with torch.no_grad():
        assert all(bool(share.isfinite()) for share in losses(nothing).values())


@pytest.fixture(scope="module")
def faster() -> PretrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return load_pretrained_model(FASTER, weights=None, device="cpu")


def test_training_freezing_and_saving(faster: PretrainedModel, tmp_path: Path) -> None:
    model = copy.deepcopy(faster)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model.replace_head(model.head.for_classes(2))
    batch = {
        "images": torch.stack([torch.nn.functional.pad(x, (0, 96 - x.shape[2], 0, 96 - x.shape[1])) for x in images()])
    }
    batch["image_sizes"] = torch.tensor(SIZES)
    targets = {**padded_targets(masks=False), "labels": torch.tensor([[0, 1], [1, -1]])}
    statistics = {name: x.clone() for name, x in model.trunk.named_buffers()}
    trained = [p for name, p in model.named_parameters() if name.startswith(("trunk.backbone.fpn", "head"))]
    optimizer = torch.optim.SGD(trained, lr=1e-3)  # the sampled boxes are the same ones in each step
    values = []
    model.train()
    for _ in range(6):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            loss = sum(model.head.losses(model.features(batch), batch, targets).values())
        values.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert values[-1] < values[0]
    assert all(torch.equal(statistics[name], x) for name, x in model.trunk.named_buffers())
    model.eval()
    save_file({key: x.contiguous() for key, x in model.state_dict().items()}, tmp_path / "saved.safetensors")
    again = load_pretrained_model(FASTER, weights=tmp_path / "saved.safetensors", device="cpu")
    assert {fate.fate for fate in again.load_report.tensors} == {"matched"}
    with torch.no_grad():
        for ours, theirs in zip(again(batch), model(batch), strict=True):
            assert torch.equal(ours["boxes"], theirs["boxes"])


def test_tuners_find_their_places(faster: PretrainedModel) -> None:
    LoraTuner(faster, num_classes=3)
    tuned = Finetuner(faster, num_classes=3, freeze_layers=["backbone.body.0", "backbone.body.1"])
    assert tuned.model.head.num_outputs == 3


def test_damaged_and_foreign_files_are_named(faster: PretrainedModel, tmp_path: Path) -> None:
    (tmp_path / "short.pth").write_bytes(b"PK\x03\x04" + b"0" * 1000)
    with pytest.raises(DamagedFileError):
        load_pretrained_model(FASTER, weights=tmp_path / "short.pth", device="cpu")
    swapped = {name.replace("backbone", "spine"): x for name, x in faster.trunk.state_dict().items()}
    torch.save(swapped, tmp_path / "swapped.pth")
    with pytest.raises(WeightsMismatchError, match="backbone"):
        load_pretrained_model(FASTER, weights=tmp_path / "swapped.pth", device="cpu")


def test_frozen_norms_have_the_published_epsilon() -> None:
    from torchvision.ops import FrozenBatchNorm2d

    found = {}
    for name in NAMES:
        with torch.device("meta"):
            trunk = ARCHITECTURES[name].build(BuildOptions(num_classes=0)).trunk
        found[name] = {module.eps for module in trunk.modules() if isinstance(module, FrozenBatchNorm2d)}
    assert found == {name: {1e-5} if "mobilenet" in name else set() if "v2" in name else {0.0} for name in NAMES}


@torch.inference_mode()
def test_filling_does_not_reach_the_pooled_features(faster: PretrainedModel) -> None:
    """The mean is over the places that show the image: those of 64-pixel cells that begin within it."""
    batch = {"images": torch.zeros(1, 3, 192, 256), "image_sizes": torch.tensor([[128, 100]])}
    batch["images"][0, :, :128, :100] = images()[0][:, :, :1].mean()
    assert faster.trunk.feature_mask(batch).tolist() == [[1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0]]
    cells = faster.features(batch)[-1][0, :, :2, :2]
    assert torch.allclose(faster.embed(batch)[0], cells.flatten(1).mean(1), atol=1e-6)
    assert torch.equal(faster.embed(batch["images"])[0], faster.embed({"images": batch["images"]})[0])


class Squares:
    """A user's dataset: a white square on grey, whose class is its number."""

    classes = ("small", "large")

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        side = 24 if index % 2 else 48
        pixels = torch.full((80, 100 + 10 * index, 3), 90, dtype=torch.uint8)
        pixels[10 : 10 + side, 20 : 20 + side] = 255
        boxes = torch.tensor([[20.0, 10, 20 + side, 10 + side]])
        return pixels.numpy(), {"boxes": boxes, "labels": torch.tensor([0 if index % 2 else 1])}


def test_a_user_fits_and_predicts(faster: PretrainedModel) -> None:
    """Through the one loop: own boxes, the published losses, boxes in the pixels of the images."""
    pytest.importorskip("faster_coco_eval")
    model = copy.deepcopy(faster)
    model.preprocess = DetectionPreprocess(DetectionInput(size=(64, 128)))
    tuner = Finetuner(model, num_classes=2, freeze_layers=["backbone.body"], learning_rate=1e-3, backend="eager")
    tuner.fit(Squares(), epochs=2, batch_size=2)
    assert all(value == value for value in tuner.history["loss"])
    answers = tuner.predict(Squares())
    assert len(answers) == 4 and answers[0].keys() >= {"boxes", "scores", "labels"}
