"""The clip-art set is complete, small, documented, and its test split repeats nothing from training."""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from neurenix.demos import CLIPART_SPLITS, clipart_path

ROOT = clipart_path("train").parent
CLASSES = ["birds", "bugs", "buildings", "fruit", "mammals", "people", "plants", "vehicles"]
IMAGES_OF_CLASS = 20
BYTES_LIMIT = 1_500_000
HASH_SIDE = 16
# Of 512 bits. Recoloured and redrawn variants met while curating differed in at most 80 bits.
NEAR_DUPLICATE_BITS = 80


def image_files(split: str) -> list[Path]:
    """All files of one split."""
    return sorted(path for path in clipart_path(split).rglob("*") if path.is_file())


def content(path: Path) -> Image.Image:
    """The drawing in grey without its white margin, so that page position does not hide a duplicate."""
    with Image.open(path) as opened:
        image = opened.convert("L")
    ink = ImageChops.invert(image).point(lambda value: 255 if value > 8 else 0)
    return image.crop(ink.getbbox())


def perceptual_hash(path: Path) -> int:
    """A difference hash and an average hash of 256 bits each, in one number."""
    image = content(path)
    wide = image.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.LANCZOS).tobytes()
    even = image.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS).tobytes()
    mean = sum(even) / len(even)
    bits = [
        # The small step keeps compression noise on white areas from counting as a difference.
        wide[row * (HASH_SIDE + 1) + column] > wide[row * (HASH_SIDE + 1) + column + 1] + 4
        for row in range(HASH_SIDE)
        for column in range(HASH_SIDE)
    ]
    bits += [value < mean for value in even]
    return sum(1 << position for position, bit in enumerate(bits) if bit)


@pytest.mark.parametrize("split", CLIPART_SPLITS)
def test_each_class_has_twenty_images(split: str) -> None:
    folders = sorted(path for path in clipart_path(split).iterdir())
    assert [folder.name for folder in folders] == CLASSES
    assert [len(list(folder.iterdir())) for folder in folders] == [IMAGES_OF_CLASS] * len(CLASSES)


def test_all_files_together_stay_small() -> None:
    total = sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file())
    assert total <= BYTES_LIMIT


@pytest.mark.parametrize("split", CLIPART_SPLITS)
def test_images_are_square_and_rgb(split: str) -> None:
    for path in image_files(split):
        with Image.open(path) as image:
            image.load()
            assert image.mode == "RGB", path
            assert image.width == image.height, path


def test_sources_name_every_image_exactly_once() -> None:
    with (ROOT / "SOURCES.tsv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    present = [path.relative_to(ROOT).as_posix() for split in CLIPART_SPLITS for path in image_files(split)]
    assert sorted(row["file"] for row in rows) == sorted(present)
    assert len({row["source"] for row in rows}) == len(rows)
    for row in rows:
        assert row["file"].startswith(f"{row['split']}/{row['class']}/")


def test_no_image_is_stored_twice() -> None:
    digests = [hashlib.sha256(path.read_bytes()).digest() for split in CLIPART_SPLITS for path in image_files(split)]
    assert len(set(digests)) == len(digests)


def test_test_split_holds_no_near_duplicate_of_training() -> None:
    train = [(path, perceptual_hash(path)) for path in image_files("train")]
    test = [(path, perceptual_hash(path)) for path in image_files("test")]
    near = [
        (first.name, second.name)
        for first, one in train
        for second, other in test
        if (one ^ other).bit_count() <= NEAR_DUPLICATE_BITS
    ]
    assert near == []


def test_perceptual_hash_notices_a_recoloured_and_moved_copy(tmp_path: Path) -> None:
    original = image_files("train")[3]
    with Image.open(original) as opened:
        image = opened.convert("RGB")
    red, green, blue = image.split()
    page = Image.new("RGB", (400, 300), "white")
    page.paste(Image.merge("RGB", (blue, red, green)), (200, 100))
    page.save(tmp_path / "copy.png")
    distance = (perceptual_hash(original) ^ perceptual_hash(tmp_path / "copy.png")).bit_count()
    assert distance <= NEAR_DUPLICATE_BITS


@pytest.mark.parametrize("split", ["validation", "", "Train"])
def test_unknown_split_is_refused_with_the_possible_ones(split: str) -> None:
    with pytest.raises(ValueError, match="'train' or 'test'"):
        clipart_path(split)


def test_demos_do_not_import_torch() -> None:
    code = "import sys, neurenix.demos; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
