from __future__ import annotations

import numpy as np
import pandas
import pytest
from PIL import Image

from neurenix.data import HuggingFaceDataset, TableDataset, all_targets, as_dataset, label_names
from neurenix.errors import (
    ConfigurationError,
    EmptyDatasetError,
    LabelMismatchError,
    UnknownNameError,
    UnreadableSampleError,
    UnsafeFileError,
)


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    frame = pandas.DataFrame({"path": ["0.png", "1.png", "2.png"], "kind": ["b", "a", "b"], "size": [1.5, 2, 3]})
    frame.to_csv(tmp_path / "table.csv", index=False)
    frame.to_parquet(tmp_path / "table.parquet")
    return tmp_path


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_images_in_a_table(folder, name):
    dataset = TableDataset(folder / name, input="path", target="kind")
    assert dataset.classes == ["a", "b"]
    assert dataset.targets.tolist() == [1, 0, 1]
    image, target = dataset[2]
    assert (image.getpixel((0, 0)), target) == ((2, 0, 0), 1)
    assert dataset.sample_name(2).endswith("2.png")


def test_real_targets_are_regression(folder):
    dataset = TableDataset(folder / "table.csv", input="path", target="size")
    assert (dataset.classes, dataset.targets.dtype) == ([], np.float32)
    assert dataset[0][1] == 1.5


def test_texts_with_guessed_columns():
    frame = pandas.DataFrame({"text": ["good", "bad"], "label": ["+", "-"], "id": [7, 8]})
    dataset = as_dataset(frame)
    assert dataset[1] == ("bad", 1)
    assert label_names(dataset) == ["+", "-"]
    assert dataset.sample_name(1) == "table row 1"


def test_several_targets_are_several_outputs():
    frame = pandas.DataFrame({"text": ["x", "y"], "red": [1, 0], "blue": [True, True]})
    dataset = TableDataset(frame, input="text", target=["red", "blue"])
    assert dataset.classes == ["red", "blue"]
    assert dataset[0][1].tolist() == [1.0, 1.0]
    assert all_targets(dataset).shape == (2, 2)


def test_wrong_columns_name_the_nearest(folder):
    with pytest.raises(UnknownNameError, match="There is no column 'pth'; closest: path"):
        TableDataset(folder / "table.csv", input="pth", target="kind")
    with pytest.raises(ConfigurationError, match="which column is the input.*columns: a, b"):
        TableDataset(pandas.DataFrame({"a": ["x"], "b": [1]}))
    with pytest.raises(ConfigurationError, match="several could be meant: text, review"):
        TableDataset(pandas.DataFrame({"text": ["x"], "review": ["y"]}))


def test_paths_may_not_leave_the_root(folder):
    frame = pandas.DataFrame({"path": ["../outside.png"]})
    with pytest.raises(UnsafeFileError, match="points outside"):
        TableDataset(frame, input="path", root=folder)
    with pytest.raises(ConfigurationError, match="needs root="):
        TableDataset(frame, input="path")


def test_missing_values(folder):
    frame = pandas.DataFrame({"text": ["a", None], "label": ["x", None]})
    with pytest.raises(LabelMismatchError, match=r"no value in 1 rows \(first: \[1\]\)"):
        TableDataset(frame, input="text", target="label")
    dataset = TableDataset(frame.drop(columns="label"), input="text")
    with pytest.raises(UnreadableSampleError, match="row 1 holds nan|row 1 holds None"):
        dataset[1]


def test_unreadable_tables(tmp_path):
    with pytest.raises(EmptyDatasetError, match="does not exist"):
        TableDataset(tmp_path / "no.csv")
    (tmp_path / "empty.csv").write_text("text,label\n")
    with pytest.raises(EmptyDatasetError, match="no rows"):
        TableDataset(tmp_path / "empty.csv")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(EmptyDatasetError, match="cannot be read as a table"):
        TableDataset(tmp_path / "bad.parquet")
    (tmp_path / "sheet.xlsx").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="possible: .csv, .parquet"):
        TableDataset(tmp_path / "sheet.xlsx")


def test_hugging_face_texts_and_class_names():
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, 1]}, features=features)
    dataset = as_dataset(rows)
    assert dataset.classes == ["no", "yes"]
    assert dataset.targets.tolist() == [1, 0, 1]
    assert dataset[1] == ("b", 0)


def test_hugging_face_images():
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    pictures = [Image.new("L", (3, 2), shade) for shade in (10, 20)]
    features = Features({"photo": ImageFeature(), "class": Value("string")})
    rows = Dataset.from_dict({"photo": pictures, "class": ["q", "p"]}, features=features)
    dataset = HuggingFaceDataset(rows)
    image, target = dataset[0]
    assert (image.mode, image.getpixel((0, 0)), target) == ("RGB", (10, 10, 10), 1)
    with pytest.raises(UnknownNameError, match="no column 'image'"):
        HuggingFaceDataset(rows, input="image")


def test_hugging_face_splits_and_streams_are_explained():
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_dict({"text": ["a"], "label": [0]})
    with pytest.raises(ConfigurationError, match=r"dictionary of splits \(train\)"):
        as_dataset(DatasetDict({"train": rows}))
    with pytest.raises(ConfigurationError, match="can only be read from start to end"):
        as_dataset(rows.to_iterable_dataset())
