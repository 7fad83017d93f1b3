"""Annotations of strangers: what cannot be true of an image is a named error, and nothing is run or blown up."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.unit.test_data_boxes import HEIGHT, WIDTH, coco, masks, picture, voc, yolo

from neurenix.data import CocoDataset, MaskFolder, VocDataset, YoloDataset
from neurenix.data.voc import parse_xml
from neurenix.errors import (
    ConfigurationError,
    DamagedFileError,
    EmptyDatasetError,
    UnreadableSampleError,
    UnsafeFileError,
)

Change = Callable[[dict[str, Any]], Any]


def first(**values: Any) -> Change:
    return lambda content: content["annotations"][0].update(values)


RUNS = {"size": [HEIGHT, WIDTH], "counts": [10, 20]}
WRONG_OBJECTS: dict[str, tuple[Change, str]] = {
    "outside": (first(bbox=[0, 0, 400, 5]), "reaches out of the image, which has 40x30 pixels"),
    "far outside": (first(bbox=[-1e300, 0, 5, 5]), "reaches out"),
    "inside out": (first(bbox=[10, 10, -5, 5]), "inside out"),
    "infinite": (first(bbox=[0, 0, float("inf"), 5]), "is .*inf.*, not 4 numbers"),
    "overflowing": (first(bbox=[1e308, 0, 1e308, 5]), "no box"),
    "NaN": (first(bbox=[0, 0, float("nan"), 5]), "not 4 numbers"),
    "three numbers": (first(bbox=[0, 0, 5]), "not 4 numbers"),
    "text": (first(bbox="0 0 5 5"), "not 4 numbers"),
    "truth values": (first(bbox=[True, True, True, True]), "not 4 numbers"),
    "huge whole number": (first(bbox=[0, 0, 10**400, 1]), "not 4 numbers"),
    "no box": (first(bbox=None), "not 4 numbers"),
    "unknown category": (first(category_id=99), "category 99"),
    "no category": (first(category_id=None), "category 'None'"),
    "category of another kind": (first(category_id={"a": 1}), "category"),
    "another size": (lambda content: content["images"][0].update(width=500), "says 500x30"),
    "too many": (lambda content: content["annotations"].extend([content["annotations"][0]] * 10_001), "10003 objects"),
    "no outline": (first(segmentation=None), "no list of polygons"),
    "empty outline": (first(segmentation=[]), "no list of polygons"),
    "two points": (first(segmentation=[[1, 1, 5, 5]]), "three points"),
    "odd": (first(segmentation=[[1, 1, 5, 5, 6, 6, 7]]), "three points"),
    "infinite outline": (first(segmentation=[[1, 1, float("inf"), 5, 6, 6]]), "three points"),
    "words": (first(segmentation=[["a"] * 6]), "three points"),
    "runs that are too short": (first(segmentation=RUNS), "do not fill the image"),
    "runs of another size": (first(segmentation={"size": [1, 1200], "counts": [1200]}), "do not fill the image"),
    "negative runs": (first(segmentation={**RUNS, "counts": [-5, 1205]}), "do not fill the image"),
    "runs beyond all memory": (first(segmentation={**RUNS, "counts": [2**62, 2**62]}), "do not fill the image"),
    "packed runs of other signs": (first(segmentation={**RUNS, "counts": "ÿÿ\x00"}), "do not fill the image"),
    "packed runs without end": (first(segmentation={**RUNS, "counts": "o" * 100}), "do not fill the image"),
    "packed runs that end within one": (first(segmentation={**RUNS, "counts": "0o"}), "do not fill the image"),
    "no runs": (first(segmentation={}), "do not fill the image"),
}


@pytest.mark.parametrize("what", WRONG_OBJECTS)
def test_objects_that_cannot_be_name_their_image(what: str, tmp_path: Path) -> None:
    change, message = WRONG_OBJECTS[what]
    dataset = coco(tmp_path, change, masks=True)
    with pytest.raises(UnreadableSampleError, match=message) as caught:
        dataset[0]
    assert "a.jpg" in str(caught.value)
    assert len(dataset[1][1]["labels"]) == 1  # the others are what they are


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("images"), "no list of images"),
        (lambda content: content.update(annotations={"a": 1}), "no list of annotations"),
        (lambda content: content.update(categories=[1]), "no list of categories"),
        (lambda content: content["images"][1].update(id=10), "id of its own"),
        (lambda content: content["images"][1].update(id="10"), "id of its own"),
        (lambda content: content["images"][1].update(file_name="a.jpg"), "same file_name"),
        (lambda content: content["categories"][0].update(name="cat"), "same name"),
        (lambda content: content["categories"][0].pop("name"), "needs an id of its own and a name"),
        (lambda content: content["annotations"][0].update(image_id=77), "is of image 77"),
        (lambda content: content["annotations"][0].update(image_id=[10]), "is of image"),
    ],
)
def test_a_coco_file_that_is_none_as_a_whole(change: Change, message: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match=message):
        coco(tmp_path, change)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b"\xff\xfe", b"null"])
def test_files_that_are_no_coco(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_bytes(content)
    with pytest.raises(DamagedFileError, match="instances.json"):
        CocoDataset(tmp_path / "instances.json")
    with pytest.raises(EmptyDatasetError, match="no file"):
        CocoDataset(tmp_path / "other.json")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../../secret.jpg", "a/../../b.jpg", "C:\\secret.jpg", "..\\b.jpg", "a\0"]
)
def test_names_that_leave_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeFileError, match="points outside"):
        coco(tmp_path, lambda content: content["images"][0].update(file_name=name))
    with pytest.raises(UnsafeFileError, match="points outside"):
        yolo(tmp_path / "yolo", yaml=json.dumps({"train": name.replace("..", "../..", 1), "names": ["cat", "dog"]}))


def test_missing_damaged_and_huge_images(tmp_path: Path) -> None:
    dataset = coco(tmp_path, max_pixels=WIDTH * HEIGHT)
    Path(dataset.paths[0]).unlink()
    Path(dataset.paths[1]).write_bytes(b"no image")
    picture(Path(dataset.paths[2]), 500, 500)
    for index, message in enumerate(("no such file", "cannot be read as an image", "500 x 500 pixels")):
        with pytest.raises(UnreadableSampleError, match=message):
            dataset[index]


def test_masks_that_would_fill_the_memory(tmp_path: Path) -> None:
    dataset = coco(tmp_path, masks=True)
    picture(Path(dataset.paths[0]), 4000, 3000)
    dataset._sizes[0] = (4000, 3000)
    dataset._objects[0] = dataset._objects[0][:1] * 500
    tracemalloc.start()
    with pytest.raises(UnreadableSampleError, match="need more than 2 GiB"):
        dataset[0]
    assert tracemalloc.get_traced_memory()[1] < 1 << 28
    tracemalloc.stop()


LAUGHS = "<!DOCTYPE lolz [<!ENTITY a 'lol'>" + "".join(
    f"<!ENTITY {chr(98 + step)} '{f'&{chr(97 + step)};' * 10}'>" for step in range(9)
)
DOCUMENTS = {
    "billion laughs": LAUGHS + "]><annotation><filename>&j;</filename></annotation>",
    "external entity": "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><annotation>&x;</annotation>",
    "external parameter": "<!DOCTYPE a SYSTEM 'http://127.0.0.1:9/x.dtd'><annotation/>",
}


@pytest.mark.parametrize("what", DOCUMENTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_documents_that_stand_for_others(what: str, encoding: str) -> None:
    content = (f'<?xml version="1.0" encoding="{encoding}"?>' + DOCUMENTS[what]).encode(encoding)
    begin = time.perf_counter()
    with pytest.raises(UnreadableSampleError, match="document type"):
        parse_xml(content, "x.xml")
    assert time.perf_counter() - begin < 1


WRONG_DOCUMENTS: dict[str, tuple[Callable[[str], str], str]] = {
    "cut": (lambda text: text[:-20], "no whole XML"),
    "empty": (lambda text: "", "no whole XML"),
    "two roots": (lambda text: text + text, "no whole XML"),
    "unknown entity": (lambda text: text.replace("dog", "&dog;"), "no whole XML"),
    "no name": (lambda text: text.replace("<name>dog</name>", ""), "without a name"),
    "no numbers": (lambda text: text.replace("<xmin>5</xmin>", "<xmin>left</xmin>"), "four numbers"),
    "no box": (lambda text: text.replace("bndbox", "box"), "four numbers"),
    "outside": (lambda text: text.replace("<xmax>20</xmax>", "<xmax>2000</xmax>"), "reaches out"),
    "infinite": (lambda text: text.replace("<xmax>20</xmax>", "<xmax>inf</xmax>"), "no box"),
    "inside out": (lambda text: text.replace("<xmax>20</xmax>", "<xmax>1</xmax>"), "inside out"),
    "another size": (lambda text: text.replace("<width>40</width>", "<width>50</width>"), "says 50x30"),
    "deep": (lambda text: "<a>" * 200_000, "no whole XML"),
}


@pytest.mark.parametrize("what", WRONG_DOCUMENTS)
def test_pascal_voc_files_that_cannot_be(what: str, tmp_path: Path) -> None:
    change, message = WRONG_DOCUMENTS[what]
    dataset = voc(tmp_path, change, classes=["cat", "dog"])
    with pytest.raises(UnreadableSampleError, match=message) as caught:
        dataset[0]
    assert "a.jpg" in str(caught.value)
    assert len(dataset[1][1]["labels"]) == 1


def test_pascal_voc_folders_that_lack_something(tmp_path: Path) -> None:
    with pytest.raises(EmptyDatasetError, match="Annotations"):
        VocDataset(tmp_path)
    dataset = voc(tmp_path, classes=["cat"])
    with pytest.raises(UnreadableSampleError, match="'dog', which is none of the classes"):
        dataset[0]
    with pytest.raises(EmptyDatasetError, match="parts of this folder: train"):
        VocDataset(tmp_path, "test")
    with pytest.raises(UnsafeFileError):
        VocDataset(tmp_path, "../../../etc/passwd")
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("b\nmissing\n")
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    part = VocDataset(tmp_path, "train")
    with pytest.raises(UnreadableSampleError, match="b.jpg.*no such file"):
        part[0]
    with pytest.raises(UnreadableSampleError, match="no annotation .*missing.xml"):
        part[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("5 0.5 0.5 0.1 0.1", "class number 5, and there are 2"),
        ("-1 0.5 0.5 0.1 0.1", "class number -1"),
        ("0 0.5 0.5 0.1", "line 1 has 3 numbers"),
        ("0 0.5 0.5 0.1 0.1 0.9", "line 1 has 5 numbers"),
        ("cat 0.5 0.5 0.1 0.1", "line 1: .* no number"),
        ("0.5 0.5 0.5 0.1 0.1", "line 1: .* no number"),
        ("0 0.5 0.5 nan 0.1", "no box"),
        ("0 0.5 0.5 -0.1 0.1", "inside out"),
        ("0 20 15 16 24", "reaches out"),
        ("0 1e308 1e308 1e308 1e308", "no box|reaches out"),
        ("\udcff", "cannot be read"),
    ],
)
def test_yolo_lines_that_cannot_be(line: str, message: str, tmp_path: Path) -> None:
    dataset = yolo(tmp_path)
    (tmp_path / "labels" / "train" / "a.txt").write_bytes(line.encode(errors="surrogateescape"))
    with pytest.raises(UnreadableSampleError, match=message) as caught:
        dataset[0]
    assert "a." in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds NoneType"),
        ("- a", "holds list"),
        ("a: [", "cannot be used"),
        ("train: images/train", "no list of class names"),
        ("train: images/train\nnames: {1: cat, 2: dog}", "no list of class names"),
        ("train: images/train\nnames: [cat, cat]", "different names"),
        ("train: images/train\nnames: [cat, dog]\nnc: 3", "nc: 3"),
        ("train: 5\nnames: [cat, dog]", "names no folder"),
        ("train: images/train\npath: [a]\nnames: [cat, dog]", "path is"),
        ("train: !!python/object/apply:os.system ['touch {}']\nnames: [cat, dog]", "cannot be used"),
        ("a: &a [x, x]\nb: &b [*a, *a]\ntrain: images/train\nnames: [cat, dog]", "aliases"),
        ("x: " + "[" * 5000, "cannot be used"),
    ],
)
def test_descriptions_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    with pytest.raises(DamagedFileError, match=message):
        yolo(tmp_path, yaml=text.replace("{}", str(proof)))
    assert not proof.exists()


def test_yolo_folders_that_lack_something(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has train, val"):
        yolo(tmp_path, part="test")
    with pytest.raises(EmptyDatasetError, match="does not exist"):
        yolo(tmp_path, yaml="train: images/other\nnames: [cat, dog]")
    with pytest.raises(UnreadableSampleError, match="boxes without outlines"):
        yolo(tmp_path, masks=True)[0]
    for path in (tmp_path / "labels" / "train").iterdir():
        path.unlink()
    with pytest.raises(EmptyDatasetError, match="none of the 3 images"):
        YoloDataset(tmp_path / "data.yaml")
    with pytest.raises(EmptyDatasetError, match="no file"):
        YoloDataset(tmp_path / "other.yaml")


def test_masks_that_do_not_belong(tmp_path: Path) -> None:
    dataset = masks(tmp_path, classes=["sky", "sea"])
    with pytest.raises(UnreadableSampleError, match="class number 2, and there are 2"):
        dataset[2]
    Image.fromarray(np.zeros((5, 6), dtype=np.uint8)).save(tmp_path / "masks" / "a.png")
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(tmp_path / "masks" / "b.png")
    (tmp_path / "masks" / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for index, message in enumerate(("its mask .* has 6x5", "mode RGB", "cannot be read as a mask")):
        with pytest.raises(UnreadableSampleError, match=message):
            dataset[index]
    (tmp_path / "images" / "a.jpg").unlink()
    with pytest.raises(UnreadableSampleError, match="no such file"):
        MaskFolder(tmp_path)[0]
    with pytest.raises(UnreadableSampleError, match="pixels"):
        MaskFolder(tmp_path, max_pixels=10)[1]
    (tmp_path / "masks" / "b.bmp").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="have one name"):
        MaskFolder(tmp_path)
    with pytest.raises(EmptyDatasetError, match="no folder"):
        MaskFolder(tmp_path, masks="SegmentationClass")
    with pytest.raises(UnsafeFileError):
        MaskFolder(tmp_path, names=["../../etc/passwd"], masks="images")
