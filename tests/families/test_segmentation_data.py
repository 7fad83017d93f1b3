"""Images and masks made ready together, and answers brought back to the images' sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.families.segmentation_checkpoints import brain_state
from torch import nn

from neurenix.data import PREPROCESSES, DataLoader, prepare
from neurenix.errors import ConfigurationError, InputMismatchError, UnreadableSampleError
from neurenix.models import ARCHITECTURES
from neurenix.transfer import Finetuner, load_pretrained_model
from neurenix.vision import SegmentationInput, SegmentationPreprocess, original_scores
from neurenix.vision.masks import as_mask

VOC = SegmentationInput()


def picture(height: int = 60, width: int = 90, seed: int = 1) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


class Pairs:
    """A user's dataset of images and masks: the left half is 1, the right half 2."""

    classes = ("sky", "left", "right")

    def __init__(self, sizes: list[tuple[int, int]]) -> None:
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> tuple[Image.Image, np.ndarray]:
        height, width = self.sizes[index]
        mask = np.ones((height, width), dtype=np.uint8)
        mask[:, width // 2 :] = 2
        shades = np.repeat((mask * 100)[:, :, None], 3, axis=2)
        return Image.fromarray(shades), mask


def test_evaluation_equals_torchvisions_bit_by_bit() -> None:
    from torchvision.transforms._presets import SemanticSegmentation

    for size in ((600, 700), (400, 300)):
        raw = picture(*size)
        made = SegmentationPreprocess(VOC)(raw)
        assert torch.equal(made["images"], SemanticSegmentation(resize_size=520)(raw))
        assert made["image_sizes"].tolist() == list(made["images"].shape[1:])
        assert made["original_sizes"].tolist() == list(size)
    for name, architecture in ARCHITECTURES.items():
        if name.startswith("deeplabv3_"):
            assert architecture.weights["coco"].input == VOC


def test_masks_keep_their_numbers_and_lie_on_their_pixels() -> None:
    preprocess = SegmentationPreprocess(SegmentationInput(size=40, divisor=32))
    raw, mask = Pairs([(60, 90)])[0]
    inputs, classes = preprocess.together(raw, mask)
    assert inputs["images"].shape == (3, 64, 64) and classes.shape == (64, 64) and classes.dtype == torch.int64
    assert inputs["image_sizes"].tolist() == [40, 60]
    assert set(classes[:40, :60].unique().tolist()) == {1, 2}
    assert bool((classes[40:] == 255).all()) and bool((classes[:, 60:] == 255).all())
    assert bool((inputs["images"][:, 40:] == 0).all())


@pytest.mark.parametrize("size", [64, (48, 56), None])
def test_augmentation_moves_image_and_mask_together(size: int | tuple[int, int] | None) -> None:
    spec = SegmentationInput(size=size, crop=(48, 56), mean=(0.0,) * 3, std=(1.0,) * 3)
    preprocess = SegmentationPreprocess(spec).for_training()
    seen = set()
    with torch.random.fork_rng():
        for seed in range(8):
            torch.manual_seed(seed)
            inputs, classes = preprocess.together(*Pairs([(60, 90)])[0])
            assert classes.shape == (48, 56) == inputs["images"].shape[1:]
            shade = (inputs["images"][0] * 255 / 100).round()
            inner = classes != 255
            assert float((shade == classes)[inner].float().mean()) > 0.95
            assert bool((inputs["images"][0][~inner] == 0).all())
            seen.add(tuple(classes[24].tolist()))
            torch.manual_seed(seed)
            assert torch.equal(preprocess.together(*Pairs([(60, 90)])[0])[1], classes)
    assert len(seen) > 2


def test_images_smaller_than_the_crop_are_not_filled_up_to_it() -> None:
    """CRAFT's crop of 768 pixels would make training on small images a hundred times as long."""
    preprocess = SegmentationPreprocess(SegmentationInput(size=None, crop=(768, 56), divisor=16)).for_training()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inputs, classes = preprocess.together(*Pairs([(60, 90)])[0])
        assert inputs["image_sizes"].tolist() == [60, 56]
        assert inputs["images"].shape[1:] == classes.shape == (64, 64)
        assert preprocess(Pairs([(60, 90)])[0][0])["images"].shape == (3, 64, 64)


def test_batches_are_filled_up_and_answers_come_back() -> None:
    preprocess = SegmentationPreprocess(SegmentationInput(size=32))
    loader = DataLoader(prepare(Pairs([(32, 64), (64, 40)]), preprocess, training=False), batch_size=2)
    inputs, targets = next(iter(loader))
    preprocess.check(inputs)
    assert inputs["images"].shape == (2, 3, 51, 64) and targets.shape == (2, 51, 64)
    assert bool((targets[0, 32:] == 255).all()) and bool((targets[1, :, 32:] == 255).all())
    scores = nn.functional.one_hot(targets.clamp(max=2), 3).permute(0, 3, 1, 2).float()
    first, second = original_scores(scores, inputs)
    assert first.shape == (3, 32, 64) and second.shape == (3, 64, 40)
    for answer, size in zip(preprocess.restore(scores, inputs), [(32, 64), (64, 40)], strict=True):
        expected = torch.from_numpy(Pairs([size])[0][1].astype(np.int64))
        assert answer.shape == size and float((answer == expected).float().mean()) > 0.97
    one = preprocess.restore(scores[:, :1] - 0.5, inputs)
    assert one[0].shape == (32, 64) and set(one[0].unique().tolist()) <= {0, 1}


def test_each_image_by_its_own_numbers() -> None:
    spec = ARCHITECTURES["unet-brain-mri"].input
    made = SegmentationPreprocess(spec)(picture())["images"]
    assert made.shape == (3, 256, 256)
    assert torch.allclose(made.mean((1, 2)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(made.std((1, 2), correction=0), torch.ones(3), atol=1e-5)
    assert bool((SegmentationPreprocess(spec)(Image.new("RGB", (20, 20), "red"))["images"] == 0).all())


def test_masks_of_every_kind(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 2], [3, 4, 255]], dtype=np.uint8)
    palette = Image.fromarray(numbers, "L").convert("P")
    palette.putpalette(list(range(256)) * 3)
    palette.putdata(numbers.flatten().tolist())
    palette.save(tmp_path / "voc.png")
    expected = torch.from_numpy(numbers.astype(np.int64))
    kinds = [
        tmp_path / "voc.png",
        Image.fromarray(numbers),
        numbers,
        numbers[None],
        torch.from_numpy(numbers),
        expected,
    ]
    for mask in kinds:
        assert torch.equal(as_mask(mask), expected)
    with pytest.raises(InputMismatchError, match="colours are no class numbers"):
        as_mask(picture())
    with pytest.raises(InputMismatchError, match="whole number"):
        as_mask(np.zeros((2, 2)))
    (tmp_path / "broken.png").write_bytes(b"nothing")
    for name in ("broken.png", "absent.png"):
        with pytest.raises(UnreadableSampleError, match=name):
            as_mask(tmp_path / name)


def test_wrong_calls_are_named() -> None:
    preprocess = SegmentationPreprocess(VOC)
    with pytest.raises(InputMismatchError, match=r"60 x 90 .* 30 x 90"):
        preprocess.together(picture(), np.zeros((30, 90), dtype=np.uint8))
    with pytest.raises(ConfigurationError, match="possible: none, standard"):
        preprocess.for_training("wild")
    with pytest.raises(InputMismatchError):
        preprocess.check(torch.zeros(2, 5, 32, 32))
    with pytest.raises(InputMismatchError, match=r"0\.\.255"):
        preprocess.check({"images": torch.randint(256, (2, 3, 64, 64)).float()})
    assert preprocess.accepts("image.png") and not preprocess.accepts(torch.zeros(3, 4, 4))


def test_json_and_back() -> None:
    for name in ("deeplabv3_resnet50", "unet-brain-mri", "craft", "unet-resnet34"):
        preprocess = SegmentationPreprocess(ARCHITECTURES[name].input).for_training()
        values = json.loads(json.dumps(preprocess.to_json()))
        assert PREPROCESSES[values["kind"]].from_json(values, None) == preprocess


def test_a_user_fits_and_predicts(tmp_path: Path) -> None:
    """Through the one loop: own masks, own losses, mean IoU, masks of the images' sizes."""
    torch.save(brain_state(), tmp_path / "unet.pt")
    model = load_pretrained_model("unet-brain-mri", weights=tmp_path / "unet.pt", device="cpu")
    model.preprocess = SegmentationPreprocess(SegmentationInput(size=(32, 32), divisor=16, mean=None, std=None))
    data = Pairs([(40, 50), (50, 40), (32, 64), (64, 32)])
    tuner = Finetuner(model, num_classes=3, learning_rate=3e-3, backend="eager", frozen_prefix="never")
    tuner.fit(data, epochs=3, batch_size=2)
    losses = tuner.history["loss"]
    assert losses[-1] < losses[0]
    answers = tuner.predict(data)
    assert [tuple(answer.shape) for answer in answers] == data.sizes
