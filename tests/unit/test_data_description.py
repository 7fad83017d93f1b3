from __future__ import annotations

import functools

import pytest
import torch

from neurenix.data import describe
from neurenix.errors import ConfigurationError
from neurenix.vision import ImageInput, ImagePreprocess, transforms


def pipeline(size=224, mean=0.5):
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.5, 1.0)),
            transforms.RandAugment(num_ops=2),
            transforms.RandomErasing(p=0.3),
            transforms.ToTensor(),
            transforms.Normalize(mean=[mean] * 3, std=[0.5] * 3),
        ]
    )


def test_equal_pipelines_have_equal_descriptions():
    assert describe(pipeline()) == describe(pipeline())
    assert "object at 0x" not in describe(pipeline())


def test_every_setting_counts():
    resize = [transforms.Resize(64), transforms.Resize(65), transforms.Resize(64, antialias=False)]
    resize += [transforms.Resize(64, interpolation=transforms.InterpolationMode.BICUBIC)]
    others = [pipeline(), pipeline(size=223), pipeline(mean=0.4), transforms.RandAugment(num_ops=3)]
    preprocess = [
        ImagePreprocess(ImageInput()),
        ImagePreprocess(ImageInput(), "light"),
        ImagePreprocess(ImageInput(crop=1.0)),
    ]
    everything = [*resize, *others, *preprocess, None]
    assert len({describe(transform) for transform in everything}) == len(everything)


def own_function(image):
    return image


class OwnTransform:
    def __call__(self, image):
        return image


@pytest.mark.parametrize(
    "transform",
    [lambda image: image, own_function, OwnTransform(), functools.partial(torch.add, other=1)],
    ids=["lambda", "function", "class", "partial"],
)
def test_what_cannot_be_known_exactly_asks_for_a_cache_key(transform):
    with pytest.raises(ConfigurationError, match="cache_key"):
        describe(transform)
    with pytest.raises(ConfigurationError, match="cache_key"):
        describe(transforms.Compose([transforms.Lambda(transform)]))


def test_a_cache_key_is_believed():
    first, second = OwnTransform(), OwnTransform()
    first.cache_key, second.cache_key = "v1", "v2"
    assert describe(first) != describe(second)
