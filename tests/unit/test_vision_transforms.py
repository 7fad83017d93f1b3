from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from neurenix.vision import transforms


def test_the_usual_pipeline_gives_a_normalised_tensor():
    pipeline = transforms.Compose(
        [
            transforms.Resize(16),
            transforms.CenterCrop(12),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25]),
        ]
    )
    tensor = pipeline(Image.new("RGB", (20, 30), (255, 0, 51)))
    assert type(tensor) is torch.Tensor
    assert (tensor.shape, tensor.dtype) == ((3, 12, 12), torch.float32)
    torch.testing.assert_close(tensor[:, 0, 0], torch.tensor([2.0, -2.0, -1.2]))  # (v / 255 - 0.5) / 0.25, by hand


def test_to_tensor_reads_arrays_and_is_picklable():
    array = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    tensor = pickle.loads(pickle.dumps(transforms.ToTensor()))(array)
    torch.testing.assert_close(tensor, torch.from_numpy(array).permute(2, 0, 1) / 255)


@pytest.mark.parametrize(
    "name",
    "ColorJitter RandomRotation RandomCrop RandAugment TrivialAugmentWide AutoAugment RandomErasing GaussianBlur "
    "Grayscale Pad RandomVerticalFlip RandomAffine Lambda ToDtype RandomHorizontalFlip RandomResizedCrop".split(),
)
def test_usual_names_are_there(name):
    assert callable(getattr(transforms, name))
    assert name in dir(transforms)


def test_unknown_transform_names_the_nearest():
    with pytest.raises(
        AttributeError, match="There is no transform 'RandomHorizontalFlop'; closest: RandomHorizontalFlip"
    ):
        _ = transforms.RandomHorizontalFlop
    with pytest.raises(ImportError):
        from neurenix.vision.transforms import Qqqq  # noqa: F401


def test_importing_neurenix_vision_does_not_import_torchvision():
    code = (
        "import sys, neurenix.vision.transforms, neurenix.data, neurenix.text; sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
