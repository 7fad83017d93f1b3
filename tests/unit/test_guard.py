from __future__ import annotations

import warnings

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image, ImageDraw

from neurenix.data import check_inputs
from neurenix.errors import InputMismatchError, InputMismatchWarning
from neurenix.text import check_tokens
from neurenix.vision import ImageInput, ImagePreprocess, check_images, transforms

HALF = ((0.5,) * 3, (0.5,) * 3)
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
UNIT = ((0.0,) * 3, (1.0,) * 3)
RAW = ((0.0,) * 3, (1 / 255,) * 3)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SCALINGS = {"imagenet": IMAGENET, "half": HALF, "clip": CLIP, "unit": UNIT}


def spec_of(scaling, size=(64, 64)):
    return ImageInput(size=size, mean=scaling[0], std=scaling[1])


@pytest.fixture(scope="module")
def photographs():
    names = ("astronaut", "chelsea", "coffee", "rocket", "camera", "moon", "page", "retina", "brick", "logo")
    return [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in names]


def clip_art(number):
    draw_from = np.random.default_rng(number)
    image = Image.new("RGB", (90, 80), "white")
    for _ in range(4):
        x, y, width, height = (int(v) for v in draw_from.integers(5, 60, 4))
        color = tuple(int(v) for v in draw_from.integers(0, 256, 3))
        ImageDraw.Draw(image).ellipse([x, y, x + width, y + height], fill=color)
    return image


def batch(images, scaling, augmentation="none"):
    return torch.stack([ImagePreprocess(spec_of(scaling), augmentation)(image) for image in images])


def float_batch(images, scaling):
    """Resized and coloured after scaling to reals, so that no pixel is a whole number any more."""
    steps = [transforms.ToTensor(), transforms.Resize((64, 64)), transforms.ColorJitter(0.3, 0.3, 0.3)]
    pipeline = transforms.Compose([*steps, transforms.Normalize(*scaling)])
    torch.manual_seed(0)
    return torch.stack([pipeline(image) for image in images])


@pytest.mark.parametrize("name", SCALINGS)
def test_no_false_alarm_on_right_images(photographs, name):
    scaling = SCALINGS[name]
    dark = [Image.eval(image, lambda value: value // 4) for image in photographs]
    pale = [Image.eval(image, lambda value: 100 + value // 5) for image in photographs]
    flat = [Image.new("RGB", (9, 9), (shade, 40, 90)) for shade in (0, 99, 255)]
    for images in (photographs, dark, pale, flat, [clip_art(number) for number in range(8)]):
        batches = [batch(images, scaling), batch(images, scaling, "strong"), float_batch(images, scaling)]
        for whole in batches:
            for part in (whole, *whole.split(1)):
                assert check_images(part, spec_of(scaling)) == []


@pytest.mark.parametrize("used", ["half", "clip", "unit", "raw", "swapped", "imagenet"])
@pytest.mark.parametrize("expected", SCALINGS)
def test_every_usual_wrong_scaling_is_certain(photographs, used, expected):
    right = SCALINGS[expected]
    swapped = (right[0][::-1], right[1][::-1])
    wrong = {**SCALINGS, "raw": RAW, "swapped": swapped}[used]
    if wrong == right:
        return  # nothing is wrong: covered above
    for part in batch(photographs, wrong).split(5):
        findings = check_images(part, spec_of(right))
        assert [finding.certain for finding in findings] == [True]
        mean = [round(value, 4) for value in right[0]]
        assert f"Normalize(mean={mean}" in findings[0].message


def test_messages_say_what_was_seen(photographs):
    spec = spec_of(IMAGENET)
    assert "raw values 0..255" in check_images(batch(photographs, RAW), spec)[0].message
    assert "not normalised" in check_images(batch(photographs, UNIT), spec)[0].message
    assert "mean = std = 0.5" in check_images(batch(photographs, HALF), spec)[0].message
    swapped = (IMAGENET[0][::-1], IMAGENET[1][::-1])
    assert "blue, green, red" in check_images(batch(photographs, swapped), spec)[0].message


def test_images_computed_as_reals_are_only_likely(photographs):
    findings = check_images(float_batch(photographs, UNIT), spec_of(IMAGENET))
    assert [(finding.kind, finding.certain) for finding in findings] == [("range", False)]
    findings = check_images(float_batch(photographs, IMAGENET), spec_of(HALF))
    assert [(finding.kind, finding.certain) for finding in findings] == [("normalisation", False)]
    assert check_images(float_batch(photographs, RAW), spec_of(IMAGENET))[0].certain


def test_unknown_scaling_is_estimated(photographs):
    odd = ((0.1, 0.1, 0.1), (0.1, 0.1, 0.1))
    (finding,) = check_images(batch(photographs, odd), spec_of(IMAGENET))
    assert not finding.certain
    assert "[0.1, 0.1, 0.1] and [0.1, 0.1, 0.1] seem to have been used" in finding.message


@pytest.mark.parametrize(
    ("images", "kind"),
    [
        (torch.zeros(2, 64, 64, 3), "layout"),
        (torch.zeros(3, 64, 64), "layout"),
        ([1, 2], "layout"),
        (torch.zeros(2, 1, 64, 64), "channels"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), "dtype"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.float64), "dtype"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.int64), "dtype"),
        (torch.full((2, 3, 64, 64), float("nan")), "finite"),
    ],
)
def test_what_cannot_work_is_certain(images, kind):
    findings = check_images(images, spec_of(IMAGENET))
    assert [(finding.kind, finding.certain) for finding in findings] == [(kind, True)]


def test_non_finite_images_are_named():
    images = torch.zeros(4, 3, 64, 64)
    images[2, 0, 0, 0] = float("inf")
    assert "images [2] of the first batch" in check_images(images, spec_of(IMAGENET))[0].message


def test_errors_and_warnings(photographs):
    preprocess = ImagePreprocess(spec_of(IMAGENET))
    with pytest.raises(InputMismatchError, match="0..255"):
        check_inputs(batch(photographs, RAW), preprocess)
    with pytest.warns(InputMismatchWarning, match="32 x 32 and the weights were trained on 64 x 64"):
        check_inputs(batch(photographs, IMAGENET)[:, :, :32, :32], preprocess)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_inputs(batch(photographs, IMAGENET), preprocess)
        check_inputs(torch.zeros(1), None)


def tokens(ids, mask=None):
    ids = torch.tensor(ids)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids) if mask is None else torch.tensor(mask)}


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        (tokens([[1, 2, 100]]), "vocabulary"),
        (tokens([[1, -1, 3]]), "vocabulary"),
        (tokens([[1] * 9]), "length"),
        (tokens([[1, 2]], [[1]]), "mask"),
        (tokens([1, 2]), "layout"),
        (torch.zeros(2, 3), "layout"),
        ({"input_ids": torch.zeros(1, 2)}, "dtype"),
    ],
)
def test_tokens_that_the_model_cannot_read(inputs, kind):
    findings = check_tokens(inputs, vocabulary_size=100, max_length=8)
    assert [(finding.kind, finding.certain) for finding in findings] == [(kind, True)]


def test_right_tokens_pass():
    assert check_tokens(tokens([[0, 99, 5]]), vocabulary_size=100, max_length=3) == []
