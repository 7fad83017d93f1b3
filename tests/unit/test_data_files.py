from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from neurenix.data import ImageFiles, ImageFolder, open_image, to_rgb
from neurenix.errors import ConfigurationError, EmptyDatasetError, LabelMismatchError, UnreadableSampleError


def save(path, color=(200, 30, 30), size=(12, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


@pytest.fixture
def flowers(tmp_path):
    for name in ("tulip", "daisy"):
        for number in range(3):
            save(tmp_path / name / f"{number}.png")
    save(tmp_path / "daisy" / "deeper" / "x.JPG")
    save(tmp_path / "daisy" / ".hidden.png")
    save(tmp_path / ".git" / "no.png")
    (tmp_path / "daisy" / "notes.txt").write_text("not an image")
    return tmp_path


def test_image_folder_gives_sorted_classes_files_and_targets(flowers):
    dataset = ImageFolder(root=str(flowers))
    assert dataset.classes == ["daisy", "tulip"]
    assert len(dataset) == 7
    assert dataset.targets.tolist() == [0, 0, 0, 0, 1, 1, 1]
    image, target = dataset[4]
    assert (image.mode, image.size, target) == ("RGB", (12, 8), 1)
    assert dataset.sample_name(4).endswith("tulip/0.png")


def test_image_folder_applies_its_transform(flowers):
    assert ImageFolder(flowers, transform=lambda image: image.size)[0] == ((12, 8), 0)


def test_empty_and_misplaced_folders_are_explained(tmp_path):
    with pytest.raises(EmptyDatasetError, match="does not exist"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(EmptyDatasetError, match="no folder at all"):
        ImageFolder(tmp_path)
    save(tmp_path / "a.png")
    with pytest.raises(EmptyDatasetError, match="found 1 images directly in it; move them into one folder per class"):
        ImageFolder(tmp_path)
    (tmp_path / "cats").mkdir()
    (tmp_path / "a.png").unlink()
    with pytest.raises(EmptyDatasetError, match=r"1 folders \(cats\) without any image"):
        ImageFolder(tmp_path)
    save(tmp_path / "dogs" / "a.png")
    with pytest.raises(EmptyDatasetError, match="class folders without images in .*: cats"):
        ImageFolder(tmp_path)


def test_a_file_that_is_no_image_is_named(tmp_path):
    bad = tmp_path / "broken.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    with pytest.raises(UnreadableSampleError, match="broken.png cannot be read as an image"):
        open_image(bad)
    with pytest.raises(UnreadableSampleError, match="gone.png cannot be read as an image: no such file"):
        open_image(tmp_path / "gone.png")
    whole = save(tmp_path / "cut.jpg", size=(200, 200)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableSampleError, match="cut.jpg"):
        open_image(tmp_path / "cut.jpg")


def test_formats_that_run_programs_are_not_opened(tmp_path):
    (tmp_path / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(UnreadableSampleError, match="page.png"):
        open_image(tmp_path / "page.png")


def test_too_many_pixels_are_not_decoded(tmp_path):
    path = save(tmp_path / "big.png", size=(40, 40))
    with pytest.raises(UnreadableSampleError, match="40 x 40 pixels"):
        open_image(path, max_pixels=1000)
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(UnreadableSampleError, match="bomb.png"):
        open_image(tmp_path / "bomb.png")


def test_exif_orientation_is_followed(tmp_path):
    image = Image.new("RGB", (20, 10), "white")
    image.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: top left goes to top right
    image.save(tmp_path / "turned.png", exif=exif)
    turned = open_image(tmp_path / "turned.png")
    assert turned.size == (10, 20)
    assert turned.getpixel((9, 0)) == (0, 0, 0)


def test_transparency_lies_on_white_and_deep_grey_keeps_its_shades():
    half = to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 128)))
    assert half.getpixel((0, 0)) == (255, 127, 127)  # 128/255 of red over white
    palette = Image.new("P", (2, 2), 0)
    palette.info["transparency"] = 0
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)
    deep = Image.fromarray(np.full((2, 2), 0x80FF, dtype=np.uint16))
    assert to_rgb(deep).getpixel((0, 0)) == (128, 128, 128)
    with pytest.raises(UnreadableSampleError, match="'F' has no fixed range"):
        to_rgb(Image.new("F", (2, 2)))


def test_image_files_number_class_names_and_refuse_unknown_ones(tmp_path):
    paths = [save(tmp_path / f"{n}.png") for n in range(3)]
    dataset = ImageFiles(paths, ["b", "a", "b"])
    assert (dataset.classes, dataset.targets.tolist()) == (["a", "b"], [1, 0, 1])
    assert ImageFiles(paths)[0][1] is None
    with pytest.raises(LabelMismatchError, match="'c'"):
        ImageFiles(paths, ["a", "b", "c"], classes=["a", "b"])
    with pytest.raises(ConfigurationError, match="3 paths and 2 targets"):
        ImageFiles(paths, [0, 1])
    with pytest.raises(ConfigurationError, match="on_bad='ignore'"):
        ImageFiles(paths, on_bad="ignore")
