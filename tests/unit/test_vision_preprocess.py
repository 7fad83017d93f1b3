from __future__ import annotations

import json

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from neurenix.data import ListDataset, prepare
from neurenix.errors import ConfigurationError, InputMismatchError, UnreadableSampleError
from neurenix.vision import AUGMENTATIONS, ImageInput, ImagePreprocess


@pytest.fixture(scope="module")
def cat():
    return Image.fromarray(skimage.data.chelsea())


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(224, 224), (240, 320), (97, 97)])
@pytest.mark.parametrize("crop", [0.875, 1.0])
def test_equals_timm_bit_for_bit(cat, size, crop, interpolation):
    import timm

    configuration = {"input_size": (3, *size), "crop_pct": crop, "interpolation": interpolation}
    model = timm.create_model("resnet18", pretrained=False)
    expected = timm.data.create_transform(**{**timm.data.resolve_model_data_config(model), **configuration})
    ours = ImagePreprocess(ImageInput(size=size, crop=crop, interpolation=interpolation))
    for image in (cat, cat.rotate(90, expand=True)):
        assert torch.equal(ours(image), expected(image))


def test_all_kinds_of_raw_images_give_the_same(cat, tmp_path):
    preprocess = ImagePreprocess(ImageInput(size=(32, 32)))
    array = np.array(cat)
    cat.save(tmp_path / "cat.png")
    tensor = torch.from_numpy(array)
    raws = [cat, array, array.transpose(2, 0, 1), tensor, tensor.permute(2, 0, 1), tmp_path / "cat.png"]
    raws += [str(tmp_path / "cat.png")]
    expected = preprocess(cat)
    assert (expected.shape, expected.dtype) == ((3, 32, 32), torch.float32)
    for raw in raws:
        assert preprocess.accepts(raw)
        assert torch.equal(preprocess(raw), expected)


def test_ready_tensors_are_not_raw():
    preprocess = ImagePreprocess(ImageInput())
    assert not preprocess.accepts(torch.zeros(3, 8, 8))
    assert not preprocess.accepts(np.zeros((8, 8, 3)))
    with pytest.raises(InputMismatchError, match="float32 has no known range"):
        preprocess(torch.zeros(3, 8, 8))
    with pytest.raises(InputMismatchError, match="no axis of 3 channels"):
        preprocess(np.zeros((8, 8, 7), dtype=np.uint8))
    with pytest.raises(UnreadableSampleError, match=r"gone\.png"):
        preprocess("gone.png")


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_other_numbers_of_channels(cat, channels):
    spec = ImageInput(size=(32, 48), mean=(0.5,) * channels, std=(0.5,) * channels, interpolation="bilinear")
    raw = np.full((60, 80, channels), 51, dtype=np.uint8)
    result = ImagePreprocess(spec)(raw)
    assert result.shape == (channels, 32, 48)
    torch.testing.assert_close(result, torch.full_like(result, (0.2 - 0.5) / 0.5))
    torch.testing.assert_close(ImagePreprocess(spec, "standard")(raw), result)
    if channels < 6:
        assert ImagePreprocess(spec)(cat).shape == (channels, 32, 48)


def test_tensor_resizing_stays_close_to_that_of_images(cat):
    # six channels go through torch's antialiased resize, three through PIL's: one picture, two implementations
    spec = ImageInput(size=(64, 64), mean=(0.0,) * 3, std=(1.0,) * 3)
    double = ImageInput(size=(64, 64), mean=(0.0,) * 6, std=(1.0,) * 6)
    twice = np.concatenate([np.array(cat)] * 2, axis=2)
    assert (ImagePreprocess(double)(twice)[:3] - ImagePreprocess(spec)(cat)).abs().max() < 2 / 255


@pytest.mark.parametrize("augmentation", [name for name in AUGMENTATIONS if name != "none"])
def test_training_augments_at_random_and_keeps_the_shape(cat, augmentation):
    preprocess = ImagePreprocess(ImageInput(size=(24, 24))).for_training(augmentation)
    first, second = preprocess(cat), preprocess(cat)
    assert first.shape == (3, 24, 24)
    assert not torch.equal(first, second)


def test_saving_and_loading_as_json():
    preprocess = ImagePreprocess(ImageInput(size=(20, 30), crop=0.9, interpolation="bilinear"), "light")
    assert ImagePreprocess.from_json(json.loads(json.dumps(preprocess.to_json()))) == preprocess
    with pytest.raises(ConfigurationError, match="possible: none, light, standard, strong"):
        ImagePreprocess(ImageInput(), "wild")
    with pytest.raises(ConfigurationError, match="5 channels are none"):
        ImagePreprocess(ImageInput(mean=(0.0,) * 5, std=(1.0,) * 5), "strong")
    with pytest.raises(ConfigurationError, match="interpolation='cubic'"):
        ImagePreprocess(ImageInput(interpolation="cubic"))


def test_undo_gives_the_picture_back():
    pixels = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    preprocess = ImagePreprocess(ImageInput(size=(16, 16), crop=1.0))
    assert torch.equal(preprocess.undo(preprocess(pixels)), pixels)


def test_exif_orientation_of_an_opened_image_is_followed(cat):
    turned = cat.rotate(90, expand=True)  # counter-clockwise; orientation 6 says: turn it back
    turned.getexif()[0x0112] = 6
    preprocess = ImagePreprocess(ImageInput(size=(32, 32)))
    assert torch.equal(preprocess(turned), preprocess(cat))


def test_prepare_wraps_raw_images_and_leaves_tensors(cat):
    preprocess = ImagePreprocess(ImageInput(size=(16, 16)))
    dataset = ListDataset([cat, cat], ["x", "y"])
    ready = prepare(dataset, preprocess, training=False)
    assert torch.equal(ready[1][0], preprocess(cat))
    assert (ready.classes, ready.targets.tolist(), ready.sample_name(1)) == (["x", "y"], [0, 1], "sample 1")
    assert prepare(dataset, preprocess, training=True).preprocess.augmentation == "standard"
    assert prepare(dataset, preprocess.for_training("light"), training=True).preprocess.augmentation == "light"
    assert prepare(ready, preprocess, training=True) is ready
    assert prepare(dataset, None, training=True) is dataset


def test_prepare_draws_nothing_from_the_callers_generators(cat):
    dataset = ListDataset([cat], transform=lambda image: torch.rand(3))
    state = torch.get_rng_state()
    prepare(dataset, ImagePreprocess(ImageInput()), training=True)
    assert torch.equal(torch.get_rng_state(), state)
