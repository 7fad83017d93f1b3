"""A small folder of pictures, and the options of a fit that is quick."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from PIL import Image

FIT = "--model resnet18 --weights null --input-shape 32,32,3 --strategy full --epochs 3 --batch_size 4"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes that differ in colour; train/ and test/ with eight pictures each."""
    random = numpy.random.default_rng(0)
    for split in ("train", "test"):
        for place, name in enumerate(("blue", "red")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(8):
                picture = random.integers(0, 120, (40, 40, 3), dtype="uint8")
                picture[..., 2 * (1 - place)] += 100
                Image.fromarray(picture).save(folder / f"{number}.png")
    return tmp_path / "data"


@pytest.fixture
def fit(pictures: Path) -> list[str]:
    """The words of a `fit` command without --output."""
    return ["fit", "--data", str(pictures), *FIT.split()]
