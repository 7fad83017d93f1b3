"""What every head for masks or boxes promises, on trunks of every make, whose maps it finds by measuring."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from neurenix.errors import ConfigurationError, LabelMismatchError
from neurenix.models import PretrainedModel, adopt
from neurenix.transfer import Finetuner, LoraTuner, attach_head, heads, load_pretrained_model
from neurenix.transfer.heads import HEADS, HeadKind
from neurenix.transfer.heads._backbone import backbone_of
from neurenix.transfer.heads._kind import kind_from, record_of

CLASSES, SIDE = 3, 64
SMALL: dict[str, dict[str, Any]] = {
    "unet": {"widths": [16, 8]},
    "anchor_free": {"channels": 64, "depth": 1},
    "anchors": {"channels": 32},
}
NAMES = [name for name, kind in HEADS.items() if kind.task in ("segmentation", "detection")]


class Residual(nn.Module):
    """Blocks with a way around them, two of which halve the image."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, 2, 1)
        self.second = nn.Conv2d(after, after, 3, 1, 1)
        self.beside = nn.Conv2d(before, after, 1, 2)

    def forward(self, maps: Tensor) -> Tensor:
        return (self.second(self.first(maps).relu()) + self.beside(maps)).relu()


class OwnNetwork(nn.Module):
    """A network of the user's own, whose body gives a vector and which divides the image by 3 where it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()),
            Residual(8, 16),
            nn.Conv2d(16, 24, 3, 3, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.fc = nn.Linear(24, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.body(images))


def seeded(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    @functools.cache
    def made() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return make()

    return made


def of_timm(name: str, **sizes: Any) -> Callable[[], nn.Module]:
    return seeded(lambda: timm.create_model(name, pretrained=False, num_classes=CLASSES, **sizes))


# network -> [(layer, channels, stride)]
NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[tuple[str, int, int]]]] = {
    "own": (
        seeded(OwnNetwork),
        [("module.body.1", 8, 2), ("module.body.2", 16, 4), ("module.body.3", 24, 12)],
    ),
    "convnext": (
        of_timm("test_convnext"),
        [
            ("module.stages.0", 24, 4),
            ("module.stages.1", 32, 8),
            ("module.stages.2", 48, 16),
            ("module.norm_pre", 64, 32),
        ],
    ),
    "vit": (of_timm("test_vit", img_size=SIDE), [("module.norm", 64, 16)]),
    "swin": (
        of_timm(
            "swin_tiny_patch4_window7_224",
            img_size=SIDE,
            window_size=4,
            embed_dim=24,
            depths=(1, 1, 1),
            num_heads=(1, 2, 4),
        ),
        [("module.layers.0", 24, 4), ("module.layers.1", 48, 8), ("module.norm", 96, 16)],
    ),
    "resnet": (
        of_timm("test_resnet"),
        [
            ("module.act1", 32, 2),
            ("module.layer1", 32, 4),
            ("module.layer2", 48, 8),
            ("module.layer3", 192, 16),
            ("module.layer4", 96, 32),
        ],
    ),
}
FIXED = ("vit", "swin")  # read images of one size
every_network = pytest.mark.parametrize("network", NETWORKS)
every_head = pytest.mark.parametrize("name", NAMES)


def network_of(name: str) -> PretrainedModel:
    return adopt(copy.deepcopy(NETWORKS[name][0]()))


def kind_of(name: str, **others: Any) -> HeadKind:
    return HEADS[name](**{"num_outputs": CLASSES, **SMALL.get(name, {}), **others})


def with_head(network: str, name: str) -> PretrainedModel:
    return attach_head(network_of(network), kind_of(name))


def data(name: str, count: int, size: tuple[int, int] = (SIDE, SIDE)) -> tuple[Tensor, Any]:
    """Noise with a bright rectangle in the upper left part, of one of the classes."""
    generator = torch.Generator().manual_seed(1)
    images = 0.1 * torch.randn(count, 3, *size, generator=generator)
    labels = torch.arange(count) % CLASSES
    masks = torch.zeros(count, *size, dtype=torch.long)
    for row, label in enumerate(labels.tolist()):
        images[row, label, 6:30, 8:36] += 2
        masks[row, 6:30, 8:36] = label
    masks[:, :2] = 255
    boxes = torch.tensor([8.0, 6, 36, 30]).expand(count, 1, 4)
    if HEADS[name].task == "segmentation":
        return images, masks
    padded = torch.cat([boxes, torch.zeros_like(boxes)], 1)
    return images, {"boxes": padded, "labels": torch.stack([labels, torch.full_like(labels, -1)], 1)}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return all(torch.equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a)


@every_network
def test_maps_are_found_with_their_strides(network: str) -> None:
    levels = backbone_of(network_of(network)).pyramid().levels
    assert [(level.layer, level.channels, level.stride) for level in levels] == NETWORKS[network][1]


@every_network
@every_head
def test_answers_are_in_pixels_of_the_input_and_losses_fall(network: str, name: str) -> None:
    model = with_head(network, name)
    size = (SIDE, SIDE) if network in FIXED else (50, 71)
    images, targets = data(name, 2, size)
    with torch.no_grad():
        answers = model.eval()(images)
    if HEADS[name].task == "segmentation":
        assert answers.shape == (2, CLASSES, *size)
    else:
        assert [set(answer) for answer in answers] == [{"boxes", "scores", "labels"}] * 2
        for answer in answers:
            assert bool((answer["boxes"] >= 0).all()) and bool((answer["boxes"] <= torch.tensor(size[::-1] * 2)).all())
            assert set(answer["labels"].tolist()) <= set(range(CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    values = []
    for _ in range(10):
        loss = sum(model.train()(images, targets).values())
        values.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(torch.isfinite(torch.tensor(values)))
    assert min(values[5:]) < 0.98 * values[0]


@every_head
def test_saved_and_loaded_answers_are_the_same_bits(name: str, tmp_path: Path) -> None:
    images, targets = data(name, 4)
    rows = [
        targets[row] if isinstance(targets, Tensor) else {k: v[row] for k, v in targets.items()} for row in range(4)
    ]
    tuner = Finetuner(with_head("vit", name), learning_rate=1e-3)
    tuner.fit(list(zip(images, rows, strict=True)), epochs=1, batch_size=2, run=False)
    if HEADS[name].task == "detection":
        tuner.model.head.score_threshold = 0.02
    tuner.save(tmp_path / "saved")
    again = Finetuner.load(tmp_path / "saved", model=copy.deepcopy(NETWORKS["vit"][0]()))
    with torch.no_grad():
        assert same(again.model.eval()(images), tuner.model.eval()(images))
    assert getattr(again.model.head, "score_threshold", 0.02) == 0.02


@every_head
def test_a_tuner_is_asked_for_it_by_name_or_with_its_settings(name: str, tmp_path: Path) -> None:
    by_name = Finetuner(network_of("own"), num_classes=2, head=name)
    assert (by_name.num_outputs, by_name.task) == (2, HEADS[name].task)
    kind = kind_of(name)
    tuner = LoraTuner(network_of("convnext"), head=kind)
    assert kind_from(tuner.model.head_record or {}) == kind == kind_from(record_of(kind))
    tuner.save(tmp_path / "saved")
    again = LoraTuner.load(tmp_path / "saved", model=network_of("convnext"))
    images, _ = data(name, 1)
    with torch.no_grad():
        assert same(again.model.eval()(images), tuner.model.eval()(images))


@every_head
def test_the_same_head_for_other_classes(name: str) -> None:
    head = with_head("convnext", name).head
    other = head.for_classes(7)
    assert (head.num_outputs, other.num_outputs) == (CLASSES, 7)
    before, after = head.state_dict(), other.state_dict()
    differing = [key for key in after if not torch.equal(after[key], before[key])]
    assert {key.rpartition(".")[0] for key in differing} <= {"classifier", "head.classification_head.cls_logits"}
    with pytest.raises(ConfigurationError, match="num_outputs=0"):
        head.for_classes(0)


@every_network
@every_head
def test_attaching_changes_nothing_of_what_was_given(network: str, name: str) -> None:
    model = network_of(network).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    random_state, head, preprocess = torch.get_rng_state(), model.head, model.preprocess
    changed = attach_head(model, kind_of(name))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.training and (model.head, model.preprocess) == (head, preprocess)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    trunk = {key: tensor for key, tensor in changed.state_dict().items() if key.startswith("trunk.")}
    assert all(torch.equal(tensor, before[key]) for key, tensor in trunk.items())
    assert record_of(kind_of(name))["kind"] == name


@every_head
def test_networks_without_maps_are_refused_by_name(name: str) -> None:
    bert = load_pretrained_model("all-minilm-l6-v2", weights=None, include_top=False, device="cpu")
    before = copy.copy(bert.__dict__)
    with pytest.raises(ConfigurationError, match="domain 'nlp'.*needs maps"):
        attach_head(bert, kind_of(name))
    assert bert.__dict__ == before
    vectors = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.Linear(8, 2))
    vectors(torch.zeros(1, 3, 192, 192))
    with pytest.raises(ConfigurationError, match="computes nothing of the kind"):
        attach_head(vectors, kind_of(name))
    with pytest.raises(ConfigurationError, match="read none of the images that were tried"):
        attach_head(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)), kind_of(name))


@every_head
def test_targets_of_another_kind_are_refused_and_the_weights_stay(name: str) -> None:
    images, right = data(name, 2)
    tuner = Finetuner(with_head("resnet", name))
    before = {key: tensor.clone() for key, tensor in tuner.model.state_dict().items()}
    of_boxes = HEADS[name].task == "detection"
    wrong = {
        "class numbers": torch.tensor([0, 1]),
        "the other kind": data("fcn" if of_boxes else "anchors", 2)[1],
        "too many classes": {**right, "labels": right["labels"] + 3} if of_boxes else right + 3,
        "a bad size": {**right, "boxes": right["boxes"].flip(2)} if of_boxes else right[:, :60],
    }
    for what, targets in wrong.items():
        rows = [
            targets[row] if isinstance(targets, Tensor) else {key: value[row] for key, value in targets.items()}
            for row in range(2)
        ]
        with pytest.raises(LabelMismatchError):
            tuner.fit(list(zip(images, rows, strict=True)), epochs=1, batch_size=2, run=False)
            pytest.fail(what)
    assert all(torch.equal(tensor, before[key]) for key, tensor in tuner.model.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (heads.DeepLab, {"rates": [0]}, "rates=\\[0\\]"),
        (heads.UNet, {"widths": []}, "widths=\\[\\]"),
        (heads.AnchorFree, {"channels": 96 + 8}, "multiple of 32, from 64"),
        (heads.AnchorFree, {"channels": 32}, "multiple of 32, from 64"),
        (heads.AnchorFree, {"depth": 0}, "depth=0"),
        (heads.Anchors, {"channels": 0}, "channels=0"),
        (heads.Anchors, {"finest_stride": 0}, "finest_stride=0"),
        (heads.Anchors, {"box_loss": "l3"}, "possible: l1, smooth_l1, giou"),
        (heads.Anchors, {"anchor_scale": 0.0}, "anchor_scale=0.0"),
        (heads.Anchors, {"aspect_ratios": []}, "aspect_ratios=\\[\\]"),
    ],
)
def test_settings_that_cannot_work_are_named(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        kind(num_outputs=2, **settings)
