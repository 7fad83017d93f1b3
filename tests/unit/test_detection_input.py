"""Images for detectors: resizing, boxes and masks that change with them, batches, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from neurenix.data import PREPROCESSES, DataLoader
from neurenix.errors import (
    ConfigurationError,
    InputMismatchError,
    InputMismatchWarning,
    LabelMismatchError,
    UnreadableSampleError,
)
from neurenix.vision import DetectionInput, DetectionPreprocess, boxes_in_original

LETTERBOX = DetectionPreprocess(DetectionInput.letterbox(64))
SHORTER = DetectionPreprocess(DetectionInput(size=(64, 80)))


def picture(height: int = 37, width: int = 53, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def target(masks: bool = True) -> dict[str, Tensor]:
    found = {"boxes": torch.tensor([[1.0, 2, 30, 20], [10, 5, 50, 36]]), "labels": torch.tensor([1, 0])}
    if masks:
        found["masks"] = torch.zeros(2, 37, 53, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(found["masks"], found["boxes"].int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
    return found


def test_shorter_side_is_torchvisions_bit_by_bit() -> None:
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    theirs = GeneralizedRCNNTransform(64, 80, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    for height, width in ((37, 53), (53, 37), (20, 90), (64, 64), (200, 131)):
        raw = picture(height, width)
        listed, _ = theirs([torch.from_numpy(raw).permute(2, 0, 1) / 255])
        ours = SHORTER(raw)
        assert [tuple(ours["image_sizes"].tolist())] == listed.image_sizes
        assert ours["original_sizes"].tolist() == [height, width]
        used = listed.tensors[0, :, : ours["images"].shape[1], : ours["images"].shape[2]]
        assert torch.equal(ours["images"], used)
    boxes, changed = target(), SHORTER.with_target(picture(), target())[1]
    _, (expected,) = theirs([torch.from_numpy(picture()).permute(2, 0, 1) / 255], [boxes])
    torch.testing.assert_close(changed["boxes"], expected["boxes"])
    assert torch.equal(changed["masks"], expected["masks"])


@pytest.mark.parametrize(("height", "width"), [(37, 53), (90, 120), (64, 64), (200, 10)])
def test_letterbox_is_that_of_plain_loops(height: int, width: int) -> None:
    """At the top left, as large as it fits, bilinear between pixel centres, whole values, blue first, grey around."""
    raw, scale = picture(height, width), min(64 / height, 64 / width)
    high, wide = int(height * scale), int(width * scale)
    expected = np.full((3, 64, 64), 114.0)
    for row in range(high):
        y = max(0.0, (row + 0.5) * height / high - 0.5)
        for column in range(wide):
            x = max(0.0, (column + 0.5) * width / wide - 0.5)
            total = np.zeros(3)
            for i, weight in ((int(y), 1 - y % 1), (min(int(y) + 1, height - 1), y % 1)):
                for j, share in ((int(x), 1 - x % 1), (min(int(x) + 1, width - 1), x % 1)):
                    total += weight * share * raw[i, j]
            expected[:, row, column] = total[::-1]
    found = LETTERBOX(raw)
    assert found["images"].dtype == torch.float32 and found["image_sizes"].tolist() == [high, wide]
    assert torch.equal(found["images"], found["images"].round())
    assert float((found["images"] - torch.from_numpy(expected)).abs().max()) <= 0.51  # rounded to whole values


def test_antialias_is_pils() -> None:
    spec = DetectionInput(size=(20, 40), mean=(0, 0, 0), std=(1, 1, 1), antialias=True)
    found = DetectionPreprocess(spec)(picture(100, 150))["images"] * 255
    expected = np.asarray(Image.fromarray(picture(100, 150)).resize((30, 20), Image.Resampling.BILINEAR))
    assert float((found.permute(1, 2, 0) - torch.from_numpy(expected.astype(np.float32))).abs().max()) < 1.5


@pytest.mark.parametrize("preprocess", [LETTERBOX, SHORTER], ids=["letterbox", "shorter_side"])
def test_boxes_return_to_where_they_were(preprocess: DetectionPreprocess) -> None:
    sample, changed = preprocess.with_target(picture(), target())
    height, width = sample["image_sizes"].tolist()
    assert bool((changed["boxes"] <= torch.tensor([width, height, width, height])).all())
    assert changed["masks"].shape == (2, *sample["images"].shape[1:])
    for box, mask in zip(changed["boxes"].tolist(), changed["masks"], strict=True):
        rows, columns = mask.nonzero(as_tuple=True)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert [int(edge) for edge in edges] == pytest.approx(box, abs=1)
    back = boxes_in_original(changed["boxes"], sample["image_sizes"], sample["original_sizes"])
    torch.testing.assert_close(back, target()["boxes"])
    outside = boxes_in_original(torch.tensor([[-9.0, -9, 999, 999]]), torch.tensor([64, 64]), torch.tensor([37, 53]))
    assert outside.tolist() == [[0, 0, 53, 37]]


def test_training_mirrors_image_boxes_and_masks_together() -> None:
    """A white rectangle on black stays where its box and its mask say, mirrored or not."""
    raw = np.zeros((64, 64, 3), np.uint8)
    raw[10:20, 5:30] = 255
    given = {"boxes": torch.tensor([[5.0, 10, 30, 20]]), "labels": torch.tensor([0]), "masks": torch.zeros(1, 64, 64)}
    given["masks"][0, 10:20, 5:30] = 1
    lefts = set()
    with torch.random.fork_rng():
        for seed in range(12):
            torch.manual_seed(seed)
            sample, changed = LETTERBOX.for_training().with_target(raw, given)
            rows, columns = (sample["images"].amax(0) > 60).nonzero(as_tuple=True)
            edges = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
            assert changed["boxes"].tolist() == [edges] and type(changed["boxes"]) is Tensor
            assert torch.equal(changed["masks"][0] > 0, sample["images"].amax(0) > 60)
            lefts.add(edges[0])
    assert lefts == {5, 34}


class Scenes:
    """Images of several sizes with 0, 1, 2, … boxes."""

    classes = ("thing",)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return picture(37, 40 + 10 * index), {"boxes": [[1, 2, 30, 20]] * index, "labels": [0] * index}


def test_batches_are_filled_up() -> None:
    (batch,) = DataLoader(SHORTER.wrap(Scenes(), training=True), batch_size=4)
    assert batch.inputs["images"].shape == (4, 3, 64, 96)
    assert batch.targets["boxes"].shape == (4, 3, 4) and batch.targets["labels"].tolist() == [
        [-1, -1, -1],
        [0, -1, -1],
        [0, 0, -1],
        [0, 0, 0],
    ]
    for image, (height, width) in zip(batch.inputs["images"], batch.inputs["image_sizes"].tolist(), strict=True):
        assert not image[:, height:].any() and not image[:, :, width:].any()
    SHORTER.check(batch.inputs)


def test_whole_images_may_have_one_class_instead() -> None:
    data = [(picture(), 3), (picture(seed=1), 5)]
    (batch,) = DataLoader(LETTERBOX.wrap(data, training=False), batch_size=2)
    assert batch.targets.tolist() == [3, 5] and batch.inputs["images"].shape == (2, 3, 64, 64)


@pytest.mark.parametrize("preprocess", [LETTERBOX, SHORTER.for_training()], ids=["letterbox", "shorter_side"])
def test_json_and_back(preprocess: DetectionPreprocess) -> None:
    values = preprocess.to_json()
    assert PREPROCESSES[values["kind"]].from_json(values, Path()) == preprocess


def test_wrong_batches_are_named() -> None:
    images = torch.rand(2, 3, 64, 64)
    with pytest.warns(InputMismatchWarning, match=r"0\.\.255"):
        LETTERBOX.check({"images": images})
    for wrong, words in (
        ({"images": images[:, :, :50]}, "multiples of 32"),
        ({"pixels": images}, "a detector reads"),
        (images[:, :1], "a detector reads"),
        (images.byte(), "float32"),
        (images * float("nan"), "NaN"),
        (images * -50, "0..255"),
    ):
        with pytest.raises(InputMismatchError, match=words):
            LETTERBOX.check(wrong)
    with pytest.raises(InputMismatchError, match="0.485"):
        SHORTER.check(images * 255)


def test_wrong_targets_are_named_with_their_sample() -> None:
    for wrong, words in (
        ({"boxes": [[1, 2, 3, 4]]}, "labels"),
        ({"boxes": [[1, 2, 3]], "labels": [0]}, r"\(1, 3\)"),
        ({"boxes": [[1, 2, 3, 4]], "labels": [0, 1]}, r"\(2,\)"),
        ({"boxes": [[5, 2, 3, 4]], "labels": [0]}, "without area"),
        ({"boxes": [[1, 2, 3, 4]], "labels": [-1]}, "label -1"),
    ):
        with pytest.raises(LabelMismatchError, match=f"sample 0.*{words}"):
            LETTERBOX.wrap([(picture(), wrong)], training=False)[0]
    with pytest.raises(UnreadableSampleError):
        LETTERBOX("no such file.png")


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong in (
        {"resizing": "stretch"},
        {"channel_order": "grb"},
        {"mean": None},
        {"multiple": 0},
        {"resizing": "letterbox", "size": (60, 64)},
    ):
        with pytest.raises(ConfigurationError):
            DetectionInput(**wrong)
    with pytest.raises(ConfigurationError, match="possible: none, standard"):
        LETTERBOX.for_training("mosaic")
