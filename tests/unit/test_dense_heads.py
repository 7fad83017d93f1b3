"""Heads for masks and boxes against torchvision and by hand; their preprocessing; what is a map and what is not."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from neurenix.data import ListDataset, MaskFolder
from neurenix.errors import ConfigurationError, InputMismatchError
from neurenix.models import PretrainedModel
from neurenix.nn import Pool
from neurenix.transfer import Finetuner, attach_head, heads, load_pretrained_model, predict
from neurenix.transfer.heads._backbone import backbone_of
from neurenix.transfer.heads._detection import placed_anchors
from neurenix.transfer.heads._expected_images import with_boxes, with_labels, with_masks
from neurenix.transfer.heads._pyramid import Level, as_map
from neurenix.transfer.heads._segmentation import BatchNormOfFew
from neurenix.transfer.heads._simple_pyramid import SimplePyramid
from neurenix.vision import (
    DetectionInput,
    DetectionPreprocess,
    ImageInput,
    ImagePreprocess,
    SegmentationInput,
    SegmentationPreprocess,
)

SIDE = 64


def trunk_of(*layers: nn.Module) -> PretrainedModel:
    """A model of one's own without a head."""
    names = tuple(f"trunk.{place}" for place in range(len(layers)))
    return PretrainedModel(trunk=nn.Sequential(*layers), pool=Pool("avg"), head=None, feature_size=8, stages=names)


def halving(before: int, after: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.ReLU())


def small() -> PretrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return trunk_of(halving(3, 8), halving(8, 8), halving(8, 16), halving(16, 16))


@pytest.fixture(scope="module")
def mobile() -> PretrainedModel:
    return load_pretrained_model("mobilenetv2", weights=None, device="cpu", input_shape=(SIDE, SIDE, 3))


def strides(model: PretrainedModel) -> list[tuple[str, int]]:
    return [(level.layer, level.stride) for level in backbone_of(model).pyramid().levels]


# --- against torchvision ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("kind", "published"),
    [
        (heads.FCN(num_outputs=4), lambda: FCNHead(16, 4)),
        (heads.DeepLab(num_outputs=4), lambda: DeepLabHead(16, 4, [6, 12, 18])),  # the paper's rates at stride 16
        (heads.DeepLab(num_outputs=4, rates=[2, 3]), lambda: DeepLabHead(16, 4, [2, 3])),
    ],
)
def test_segmentation_heads_are_those_of_torchvision(kind: Any, published: Any, training: bool) -> None:
    model, images = attach_head(small(), kind), torch.randn(2, 3, 45, 70)
    reference = published()
    own = model.head.state_dict()
    reference.load_state_dict(dict(zip(reference.state_dict(), own.values(), strict=True)))
    with torch.no_grad():
        maps = model.trunk(images)
        model.train(training), reference.train(training)
        found = []
        for network in (reference, lambda _: model(images)):
            torch.manual_seed(0)  # of dropout
            found.append(network(maps))
    expected = functional.interpolate(found[0], size=(45, 70), mode="bilinear", align_corners=False)
    assert torch.equal(found[1], expected)


def test_the_pixel_loss_is_torchs_cross_entropy() -> None:
    model, images = attach_head(small(), heads.UNet(num_outputs=4, widths=[8])), torch.randn(2, 3, 32, 48)
    masks = torch.randint(0, 4, (2, 32, 48))
    masks[0, :9] = 255
    expected = functional.cross_entropy(model.eval()(images), masks, ignore_index=255)
    torch.testing.assert_close(model(images, masks)["pixels"], expected)


class Backbone(nn.Module):
    out_channels = 32


@pytest.mark.parametrize("box_loss", ["l1", "giou"])
def test_losses_of_anchors_are_those_of_torchvision(box_loss: str) -> None:
    model = attach_head(small(), heads.Anchors(num_outputs=3, channels=32, box_loss=box_loss))
    images, wanted, padded = torch.randn(2, 3, 96, 128), *two_images()
    answers, anchors, _ = model.head.run(model.read(images), images)
    reference = RetinaNet(Backbone(), 3, anchor_generator=AnchorGenerator(((8, 16, 32),) * 4, ((0.5, 1.0, 2.0),) * 4))
    reference.head.regression_head._loss_type = box_loss
    expected = reference.compute_loss(wanted, answers, anchors)
    found = model.train()(images, padded)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_losses_without_anchors_are_those_of_torchvision() -> None:
    model = attach_head(small(), heads.AnchorFree(num_outputs=3, channels=64, depth=1))
    images, wanted, padded = torch.randn(2, 3, 96, 128), *two_images()
    answers, anchors, counts = model.head.run(model.read(images), images)
    expected = FCOS(Backbone(), 3).compute_loss(wanted, answers, anchors, counts)
    found = model.train()(images, padded)
    assert found.keys() == expected.keys() and all(float(value.detach()) > 0 for value in found.values())
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def two_images() -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """Targets of an image with two objects and one with none, as torchvision takes them and padded."""
    boxes, labels = torch.tensor([[10.0, 12, 42, 40], [60, 5, 120, 80]]), torch.tensor([2, 0])
    empty = {"boxes": boxes[:0], "labels": labels[:0]}
    padded = {
        "boxes": torch.stack([boxes, torch.zeros_like(boxes)]),
        "labels": torch.stack([labels, torch.full_like(labels, -1)]),
    }
    return [{"boxes": boxes, "labels": labels}, empty], padded


def test_anchors_are_torchvisions_around_the_middle_of_each_square() -> None:
    generator = AnchorGenerator(((32,), (64,)), ((0.5, 1.0),) * 2)
    maps = [torch.zeros(1, 8, 12, 16), torch.zeros(1, 8, 6, 8)]
    found = placed_anchors(generator, [(12, 16), (6, 8)], (8.0, 16.0), maps[0])
    expected = generator(ImageList(torch.zeros(1, 3, 96, 128), [(96, 128)]), maps)[0].split([len(f) for f in found])
    for own, theirs, half in zip(found, expected, (4, 8), strict=True):
        assert torch.equal(own, theirs + half)
    assert found[0][1].tolist() == [4 - 16, 4 - 16, 4 + 16, 4 + 16]


def test_anchors_keep_their_stride_where_it_does_not_divide_the_image() -> None:
    model = attach_head(small(), heads.AnchorFree(num_outputs=2, channels=64, depth=1, coarser_levels=False))
    images = torch.zeros(1, 3, 50, 71)
    _, anchors, counts = model.head.run(model.read(images), images)
    assert counts == [7 * 9, 4 * 5]
    centres = (anchors[0][: counts[0], :2] + anchors[0][: counts[0], 2:]) / 2
    assert centres[0].tolist() == [4, 4] and centres[-1].tolist() == [8 * 8 + 4, 6 * 8 + 4]


# --- parts by hand ---------------------------------------------------------------------------------------------


def test_tokens_are_places_row_by_row() -> None:
    tokens = torch.arange(2 * 7 * 3.0).reshape(2, 7, 3)
    level = Level(layer="x", channels=3, stride=16, layout="tokens")
    found = as_map(tokens, level, (32, 48))
    assert found.shape == (2, 3, 2, 3)
    assert found[1, 2, 1, 0] == tokens[1, 1 + 3, 2]
    with pytest.raises(InputMismatchError, match="7 tokens for images of 64 x 48"):
        as_map(tokens, level, (64, 48))


@pytest.mark.parametrize(("finest", "expected"), [(2, (4, 8, 16, 32)), (8, (8, 16, 32)), (16, (16, 32))])
def test_a_simple_pyramid_has_the_strides_of_its_paper(finest: int, expected: tuple[int, ...]) -> None:
    pyramid = SimplePyramid(16, 16, finest)
    maps = pyramid(torch.randn(1, 16, 5, 7))
    assert pyramid.strides == expected
    assert tuple(part.shape[1] for part in maps) == pyramid.channels
    assert [part.shape[2:] for part in maps] == [(-(-5 * 16 // s), -(-7 * 16 // s)) for s in expected]


def test_one_value_per_channel_takes_the_running_statistics() -> None:
    own, torchs = BatchNormOfFew(4), nn.BatchNorm2d(4)
    many, one = torch.randn(8, 4, 1, 1), torch.randn(1, 4, 1, 1)
    assert torch.equal(own(many), torchs(many))
    assert torch.equal(own(one), torchs.eval()(one))
    with pytest.raises(ValueError, match="more than 1 value"):
        torchs.train()(one)


def test_a_batch_of_one_can_be_trained_on() -> None:
    model, images = attach_head(small(), heads.DeepLab(num_outputs=2)), torch.randn(1, 3, 32, 32)
    assert torch.isfinite(model.train()(images, torch.zeros(1, 32, 32, dtype=torch.long))["pixels"])


# --- what is a map ---------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Tokens whose weights between each other are a layer's output, (n, 2, tokens, tokens)."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.weigh, self.join = nn.Conv2d(3, 8, 4, 4), nn.Softmax(-1), nn.Linear(8, 8)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.cut(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
        weights = self.weigh((tokens @ tokens.mT)[:, None].expand(-1, 2, -1, -1))
        return self.join(weights[:, 0] @ tokens)


def test_weights_between_tokens_are_no_map() -> None:
    assert strides(trunk_of(Attention())) == [("0", 4)]
    model = trunk_of(Attention())
    level = backbone_of(model).pyramid().last
    assert (level.layout, level.channels) == ("tokens", 8)


def test_strides_of_maps_that_lose_their_borders() -> None:
    layers = [nn.Sequential(nn.Conv2d(3 if step == 0 else 4, 4, 5), nn.MaxPool2d(2)) for step in range(4)]
    assert strides(trunk_of(*layers)) == [("0", 2), ("1", 4), ("2", 8), ("3", 16)]


def test_strides_larger_than_a_small_image_tells() -> None:
    layers = [halving(3 if step == 0 else 4, 4) for step in range(7)]
    assert [stride for _, stride in strides(trunk_of(*layers))] == [2, 4, 8, 16, 32, 64, 128]


def test_what_is_pooled_is_no_map_and_layers_within_a_stage_are_found() -> None:
    body = nn.Sequential(halving(3, 8), halving(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert strides(trunk_of(body, nn.Linear(8, 8))) == [("0.0", 2), ("0.1", 4)]


def test_where_stages_are_whole_nothing_within_them_is_taken() -> None:
    wide = nn.Sequential(nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 3, 2, 1))
    assert strides(trunk_of(halving(3, 8), wide)) == [("0", 2), ("1", 4)]


def test_unet_reads_all_maps_and_detectors_those_from_eight_pixels_on() -> None:
    model = small()
    assert attach_head(model, heads.UNet(num_outputs=2)).head.layers == ("0", "1", "2", "3")
    found = attach_head(model, heads.Anchors(num_outputs=2, channels=16))
    assert found.head.layers == ("2", "3") and found.head.neck.strides == (8, 16, 32, 64)
    finer = attach_head(model, heads.Anchors(num_outputs=2, channels=16, finest_stride=2, coarser_levels=False))
    assert finer.head.neck.strides == (2, 4, 8, 16)
    coarse = attach_head(model, heads.Anchors(num_outputs=2, channels=16, finest_stride=64))
    assert coarse.head.layers == ("3",)


# --- preprocessing ---------------------------------------------------------------------------------------------

IMAGES = ImagePreprocess(ImageInput(size=(64, 96), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)))


def test_the_preprocessing_of_masks_and_boxes_is_made_of_that_of_images() -> None:
    masked, boxed = with_masks(IMAGES).spec, with_boxes(IMAGES).spec
    for spec in (masked, boxed):
        assert (spec.size, spec.mean, spec.std) == (IMAGES.spec.size, IMAGES.spec.mean, IMAGES.spec.std)
    assert (boxed.resizing, boxed.multiple) == ("letterbox", 32)
    for make in (with_masks, with_boxes):
        once = make(IMAGES)
        assert make(once) is once and make(None) is None
    assert with_boxes(with_masks(IMAGES)).spec == boxed
    assert with_labels(with_masks(IMAGES)).spec == replace(IMAGES.spec, crop=1.0, interpolation="bilinear")
    assert with_labels(IMAGES) is IMAGES
    assert with_masks(with_boxes(IMAGES)).spec == masked
    assert with_masks(DetectionPreprocess(DetectionInput(size=(320, 500)))).spec.size == (320, 320)
    assert with_boxes(SegmentationPreprocess(SegmentationInput(size=None, crop=(48, 64)))).spec.size == (48, 64)


def test_preprocessings_that_cannot_be_turned_are_named() -> None:
    with pytest.raises(ConfigurationError, match="set model.preprocess to a SegmentationPreprocess"):
        with_masks(DetectionPreprocess(DetectionInput.letterbox(64)))
    with pytest.raises(ConfigurationError, match="mean=None"):
        with_boxes(SegmentationPreprocess(SegmentationInput(mean=None, std=None)))
    four = ImagePreprocess(ImageInput(mean=(0.5,) * 4, std=(0.5,) * 4))
    assert with_masks(four) is None and with_boxes(four) is None


def test_masks_of_the_size_of_the_images_and_the_same_from_a_saved_model(
    mobile: PretrainedModel, tmp_path: Path
) -> None:
    generator = numpy.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        size = (50 + 10 * number, 80)
        Image.fromarray(generator.integers(0, 255, (*size, 3), dtype=numpy.uint8)).save(
            tmp_path / "images" / f"{number}.png"
        )
        Image.fromarray(generator.integers(0, 2, size, dtype=numpy.uint8)).save(tmp_path / "masks" / f"{number}.png")
    dataset = MaskFolder(tmp_path, classes=["ground", "thing"])
    tuner = Finetuner(mobile, head="linear_segmentation", freeze_layers=["conv_stem", "blocks.*"])
    assert isinstance(tuner.model.preprocess, ImagePreprocess)  # the head waits for its classes
    history = tuner.fit(dataset, dataset, epochs=1, batch_size=3, run=False)
    assert 0 <= history["val_mean_iou"][-1] <= 1
    assert tuner.model.categories == ("ground", "thing")
    images = [tmp_path / "images" / f"{number}.png" for number in range(3)]
    answers = tuner.predict(images)
    assert [tuple(answer.shape) for answer in answers] == [(50, 80), (60, 80), (70, 80)]
    tuner.save(tmp_path / "saved")
    again = Finetuner.load(tmp_path / "saved", device="cpu")
    assert again.model.preprocess == tuner.model.preprocess
    assert all(torch.equal(*pair) for pair in zip(again.predict(images), answers, strict=True))


def test_boxes_in_pixels_of_the_images_as_they_came(mobile: PretrainedModel, tmp_path: Path) -> None:
    kind = heads.AnchorFree(num_outputs=2, channels=64, depth=1)
    model = attach_head(mobile, kind, categories=["circle", "square"])
    images = [numpy.zeros((128, 256, 3), dtype=numpy.uint8), numpy.zeros((40, 20, 3), dtype=numpy.uint8)]
    targets = [
        {"boxes": torch.tensor([[10.0, 10, 120, 100]]), "labels": torch.tensor([1])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
    ]
    tuner = Finetuner(model, freeze_layers=["conv_stem", "blocks.*"])
    tuner.fit(ListDataset(images, targets, ["circle", "square"]), epochs=1, batch_size=2, run=False)
    answers = tuner.predict(images)
    for answer, image in zip(answers, images, strict=True):
        assert len(answer["boxes"]) and float(answer["boxes"][:, 2].max()) <= image.shape[1]
    assert float(answers[0]["boxes"][:, 2].max()) > SIDE  # the network reads 64 pixels, the image has 256
    tuner.save(tmp_path / "saved")
    again = Finetuner.load(tmp_path / "saved", device="cpu").predict(images)
    assert all(torch.equal(a[name], b[name]) for a, b in zip(again, answers, strict=True) for name in a)


@pytest.mark.parametrize("dense", [heads.FCN(num_outputs=2), heads.Anchors(num_outputs=2, channels=16)])
def test_a_head_of_one_vector_takes_the_place_of_a_dense_one(dense: Any, mobile: PretrainedModel) -> None:
    model = attach_head(attach_head(mobile, dense), heads.Linear(num_outputs=2))
    images = [numpy.full((40, 40, 3), 60 * number, dtype=numpy.uint8) for number in range(4)]
    tuner = Finetuner(model, strategy="head")
    tuner.fit(ListDataset(images, ["a", "b", "a", "b"]), epochs=1, batch_size=2, run=False)
    assert set(predict(tuner.model, images)) <= {"a", "b"}


def test_a_killed_fit_ends_with_the_same_bits() -> None:
    model = attach_head(small(), heads.UNet(num_outputs=2, widths=[8]))
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert Finetuner(model).resume_check((images, (images[:, 0] > 0).long()), batch_size=4).same


def test_a_new_head_on_the_same_model_leaves_the_first_as_it_was() -> None:
    model = attach_head(small(), heads.FCN(num_outputs=2))
    images = torch.randn(1, 3, 32, 32)
    before = model.eval()(images)
    attach_head(model, heads.Anchors(num_outputs=2, channels=16))
    assert torch.equal(model(images), before)
    assert torch.equal(copy.deepcopy(model)(images), before)
