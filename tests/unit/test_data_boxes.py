"""Boxes and masks in the forms of COCO, YOLO and Pascal VOC, and folders of masks: the same objects from each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from neurenix.data import BoxedImages, CocoDataset, DataLoader, MaskFolder, VocDataset, YoloDataset, prepare
from neurenix.data.object_masks import _unpacked, object_masks
from neurenix.errors import NeurenixWarning
from neurenix.vision import DetectionInput, DetectionPreprocess

WIDTH, HEIGHT = 40, 30
# name, x1, y1, x2, y2 of each image
OBJECTS: dict[str, list[tuple[str, float, float, float, float]]] = {
    "a": [("dog", 4, 6, 20, 30), ("cat", 10, 0, 40, 15)],
    "b": [("cat", 0, 0, 8, 9)],
    "c": [],
}
CLASSES = ["cat", "dog"]


def rectangle(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def picture(path: Path, width: int = WIDTH, height: int = HEIGHT, orientation: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(len(path.stem)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(values).save(path, exif=exif)


def coco_content() -> dict[str, list[dict[str, Any]]]:
    images = [
        {"id": 10 * number, "file_name": f"{stem}.jpg", "width": WIDTH, "height": HEIGHT}
        for number, stem in enumerate(OBJECTS, 1)
    ]
    annotations = [
        {
            "id": number,
            "image_id": 10 * (list(OBJECTS).index(stem) + 1),
            "category_id": {"cat": 17, "dog": 18}[name],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "segmentation": [rectangle(x1, y1, x2, y2)],
            "iscrowd": 0,
        }
        for number, (stem, (name, x1, y1, x2, y2)) in enumerate(
            (s, o) for s, objects in OBJECTS.items() for o in objects
        )
    ]
    categories = [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco(folder: Path, change: Callable[[dict[str, Any]], Any] = lambda content: None, **settings: Any) -> CocoDataset:
    content = coco_content()
    change(content)
    for stem in OBJECTS:
        picture(folder / "images" / f"{stem}.jpg")
    (folder / "instances.json").write_text(json.dumps(content))
    return CocoDataset(folder / "instances.json", folder / "images", **settings)


def yolo(folder: Path, *, outlines: bool = False, yaml: str | None = None, **settings: Any) -> YoloDataset:
    for stem, objects in OBJECTS.items():
        picture(folder / "images" / "train" / f"{stem}.jpg")
        lines = []
        for name, x1, y1, x2, y2 in objects:
            values = [(x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT]
            points = np.array(rectangle(x1, y1, x2, y2)) / np.tile([WIDTH, HEIGHT], 4)
            lines.append(" ".join(map(str, [CLASSES.index(name), *(points if outlines else values)])))
        if objects:
            labels = folder / "labels" / "train"
            labels.mkdir(parents=True, exist_ok=True)
            (labels / f"{stem}.txt").write_text("\n".join(lines) + "\n")
    text = "path: .\ntrain: images/train\nval: images/train\nnc: 2\nnames: [cat, dog]\n" if yaml is None else yaml
    (folder / "data.yaml").write_text(text)
    return YoloDataset(folder / "data.yaml", **settings)


def voc_xml(stem: str, change: Callable[[str], str] = str) -> str:
    objects = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in OBJECTS[stem]
    )
    return change(
        f"<annotation><filename>{stem}.jpg</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height>"
        f"<depth>3</depth></size>{objects}</annotation>"
    )


def voc(folder: Path, change: Callable[[str], str] = str, **settings: Any) -> VocDataset:
    (folder / "Annotations").mkdir(parents=True)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for stem in OBJECTS:
        picture(folder / "JPEGImages" / f"{stem}.jpg")
        (folder / "Annotations" / f"{stem}.xml").write_text(voc_xml(stem, change if stem == "a" else str))
    (folder / "ImageSets" / "Main" / "train.txt").write_text("b\nc 1\n")
    return VocDataset(folder, **settings)


@pytest.mark.parametrize("make", [coco, yolo, voc])
def test_every_form_gives_the_same_objects(make: Callable[[Path], BoxedImages], tmp_path: Path) -> None:
    dataset = make(tmp_path)
    assert dataset.classes == CLASSES and len(dataset) == 3 and dataset.targets is None
    for index, (stem, objects) in enumerate(OBJECTS.items()):
        image, target = dataset[index]
        assert image.size == (WIDTH, HEIGHT) and image.mode == "RGB"
        assert dataset.sample_name(index).endswith(f"{stem}.jpg")
        expected = torch.tensor([box for _, *box in objects], dtype=torch.float32).reshape(-1, 4)
        torch.testing.assert_close(target["boxes"], expected)
        assert target["labels"].dtype == torch.int64 and "masks" not in target
        assert [CLASSES[label] for label in target["labels"].tolist()] == [name for name, *_ in objects]


@pytest.mark.parametrize("form", ["polygons", "runs", "packed", "yolo"])
def test_masks_fill_their_rectangles(form: str, tmp_path: Path) -> None:
    def with_runs(content: dict[str, Any]) -> None:
        from faster_coco_eval.core import mask

        for entry in content["annotations"]:
            x, y, width, height = (int(value) for value in entry["bbox"])
            drawn = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            drawn[y : y + height, x : x + width] = 1
            column = drawn.flatten(order="F").tolist()
            starts = [0, *(place for place in range(1, len(column)) if column[place] != column[place - 1]), len(column)]
            runs = [0] * column[0] + [end - start for start, end in zip(starts, starts[1:], strict=False)]
            packed = mask.encode(np.asfortranarray(drawn))["counts"]
            counts = (packed.decode() if isinstance(packed, bytes) else packed) if form == "packed" else runs
            entry["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": counts}

    if form == "yolo":
        dataset: BoxedImages = yolo(tmp_path, outlines=True, masks=True)
    else:
        dataset = coco(tmp_path, (lambda content: None) if form == "polygons" else with_runs, masks=True)
    for index, objects in enumerate(OBJECTS.values()):
        _, target = dataset[index]
        assert target["masks"].shape == (len(objects), HEIGHT, WIDTH) and target["masks"].dtype == torch.uint8
        for (_, x1, y1, x2, y2), mask in zip(objects, target["masks"].numpy(), strict=True):
            expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            expected[int(y1) : int(y2), int(x1) : int(x2)] = 1
            assert np.array_equal(mask, expected)


def test_packed_runs_equal_the_librarys() -> None:
    from faster_coco_eval.core import mask

    drawn = (np.random.default_rng(3).random((50, 300)) < 0.01).astype(np.uint8)
    drawn[:, 100:200] = 1
    packed = mask.encode(np.asfortranarray(drawn))
    text = packed["counts"].decode() if isinstance(packed["counts"], bytes) else packed["counts"]
    counts = _unpacked(text)
    assert counts is not None and sum(counts) == drawn.size
    values = np.repeat(np.arange(len(counts)) % 2, counts).reshape(300, 50).T
    assert np.array_equal(values, drawn)
    assert np.array_equal(object_masks([{"counts": text, "size": [50, 300]}], (300, 50))[0].numpy(), drawn)


def test_parts_of_an_outline_are_one_mask(tmp_path: Path) -> None:
    def two_parts(content: dict[str, Any]) -> None:
        content["annotations"][0]["segmentation"] = [rectangle(4, 6, 10, 30), rectangle(12, 6, 99, 30)]

    mask = coco(tmp_path, two_parts, masks=True)[0][1]["masks"][0]
    assert mask[10, [5, 11, 13, 39]].tolist() == [1, 0, 1, 1]


def test_crowds_and_boxes_without_area_are_left_out(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0]["iscrowd"] = 1
        content["annotations"][2]["bbox"] = [3, 3, 0, 5]

    dataset = coco(tmp_path, change)
    assert [len(dataset[index][1]["labels"]) for index in range(3)] == [1, 0, 0]


def test_rounding_beyond_the_edge_is_cut_off(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][2]["bbox"] = [-0.4, 0, 40.9, 30.2]

    assert coco(tmp_path, change)[1][1]["boxes"].tolist() == [[0, 0, WIDTH, HEIGHT]]


def test_pixels_stay_where_their_boxes_are(tmp_path: Path) -> None:
    """COCO's boxes belong to the pixels as stored, whatever EXIF says of them; YOLO's to the upright image."""
    dataset = coco(tmp_path)
    picture(Path(dataset.paths[0]), orientation=6)
    image, _ = dataset[0]
    assert image.size == (WIDTH, HEIGHT) and 0x0112 not in image.getexif()
    assert DetectionPreprocess(DetectionInput())(image)["original_sizes"].tolist() == [HEIGHT, WIDTH]
    labels = yolo(tmp_path / "yolo")
    picture(Path(labels.paths[0]), orientation=6)
    assert labels[0][0].size == (HEIGHT, WIDTH)


def test_parts_of_pascal_voc(tmp_path: Path) -> None:
    dataset = voc(tmp_path, part="train")
    assert [Path(path).stem for path in dataset.paths] == ["b", "c"]
    assert dataset.classes == CLASSES  # of the whole folder, so that parts agree


def test_difficult_objects_are_kept_when_asked_for(tmp_path: Path) -> None:
    def hard(text: str) -> str:
        return text.replace("<difficult>0", "<difficult>1", 1)

    assert voc(tmp_path / "without", hard)[0][1]["labels"].tolist() == [0]
    assert voc(tmp_path / "with", hard, difficult=True)[0][1]["labels"].tolist() == [1, 0]


def test_names_by_number_and_lists_of_images(tmp_path: Path) -> None:
    text = "train: ../images/train\nval: val.txt\nnames:\n  0: cat\n  1: dog\n"
    dataset = yolo(tmp_path, yaml=text)
    assert dataset.classes == CLASSES and len(dataset) == 3
    (tmp_path / "val.txt").write_text("./images/train/b.jpg\n")
    assert YoloDataset(tmp_path / "data.yaml", "val")[0][1]["labels"].tolist() == [0]
    other = tmp_path / "elsewhere.yaml"
    other.write_text("train: train\nnames: [cat, dog]\n")
    assert len(YoloDataset(other, root=tmp_path / "images")) == 3


def masks(folder: Path, **settings: Any) -> MaskFolder:
    for number, stem in enumerate("abc"):
        picture(folder / "images" / f"{stem}.jpg")
        values = np.full((HEIGHT, WIDTH), number, dtype=np.uint8)
        values[0] = 255
        mask = Image.fromarray(values)
        if stem == "b":
            mask = mask.convert("P")
            mask.putpalette([value for colour in range(256) for value in (colour, 255 - colour, 7)])
            mask.putdata(values.flatten().tolist())
        (folder / "masks").mkdir(exist_ok=True)
        mask.save(folder / "masks" / f"{stem}.png")
    return MaskFolder(folder, **settings)


def test_masks_in_grey_and_with_a_palette(tmp_path: Path) -> None:
    dataset = masks(tmp_path, classes=["sky", "sea", "sand"])
    for index in range(3):
        image, mask = dataset[index]
        assert image.size == (WIDTH, HEIGHT) and mask.dtype == torch.int64 and mask.shape == (HEIGHT, WIDTH)
        assert mask[1:].unique().tolist() == [index] and mask[0].unique().tolist() == [255]
    assert [Path(name).name for name in map(dataset.sample_name, range(3))] == ["a.jpg", "b.jpg", "c.jpg"]
    assert len(MaskFolder(tmp_path, names=["c"])) == 1


def test_images_without_a_mask_are_reported(tmp_path: Path) -> None:
    masks(tmp_path)
    picture(tmp_path / "images" / "d.jpg")
    with pytest.warns(NeurenixWarning, match=r"1 images .* have no mask .*\(d, …\)"):
        assert len(MaskFolder(tmp_path)) == 3


def test_a_detector_reads_them_in_batches(tmp_path: Path) -> None:
    """Made ready for a network, batches of them have padded boxes and masks."""
    spec = DetectionInput(resizing="letterbox", size=(64, 64))
    dataset = prepare(coco(tmp_path, masks=True), DetectionPreprocess(spec), False)
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    assert batch.inputs["images"].shape == (3, 3, 64, 64)
    assert batch.targets["labels"].tolist() == [[1, 0], [0, -1], [-1, -1]]
    assert batch.targets["masks"].shape == (3, 2, 64, 64)
    torch.testing.assert_close(batch.targets["boxes"][0, 0], torch.tensor([4.0, 6, 20, 30]) * 64 / WIDTH)


def test_skipped_samples_are_left_out_and_named(tmp_path: Path) -> None:
    def outside(content: dict[str, Any]) -> None:
        content["annotations"][2]["bbox"] = [0, 0, 400, 5]

    spec = DetectionInput(resizing="letterbox", size=(64, 64))
    dataset = prepare(coco(tmp_path, outside, on_bad="skip"), DetectionPreprocess(spec), False)
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    assert len(batch.inputs["images"]) == 2
    assert [Path(skipped.name).name for skipped in batch.skipped] == ["b.jpg"]
