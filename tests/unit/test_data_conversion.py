from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, IterableDataset, TensorDataset
from torch.utils.data import Subset as TorchSubset

from neurenix.data import (
    ArrayDataset,
    ImageFiles,
    ImageFolder,
    ListDataset,
    TextDataset,
    all_targets,
    as_dataset,
    label_names,
    sample_name,
    split,
)
from neurenix.errors import ConfigurationError, EmptyDatasetError, LabelMismatchError, UnreadableSampleError


def test_arrays_and_tensors():
    dataset = as_dataset((np.zeros((4, 3, 2)), ["x", "y", "x", "x"]))
    assert isinstance(dataset, ArrayDataset)
    assert dataset[0][0].dtype == torch.float32
    assert (dataset.classes, dataset.targets.tolist()) == (["x", "y"], [0, 1, 0, 0])
    assert as_dataset((torch.zeros(2, 3), torch.tensor([1, 0])))[0][1] == 1
    assert as_dataset(np.zeros((2, 3), dtype=np.uint8))[0][0].dtype == torch.uint8
    assert as_dataset(torch.zeros(2, 3))[1][1] is None
    assert as_dataset(([[1.0, 2.0], [3.0, 4.0]], [0.5, 1.5]))[1][0].tolist() == [3.0, 4.0]


def test_lists_of_texts_images_pairs_and_paths(tmp_path):
    assert isinstance(as_dataset(["a text", "another"]), TextDataset)
    assert as_dataset((["good", "bad"], ["+", "-"]))[1] == ("bad", 1)
    assert as_dataset([("good", 1), ("bad", 0)])[0] == ("good", 1)
    assert isinstance(as_dataset([Image.new("RGB", (2, 2))]), ListDataset)
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    assert isinstance(as_dataset([str(tmp_path / "a.png")]), ImageFiles)
    assert isinstance(as_dataset(["I like photo.png"]), TextDataset)  # ends like an image, but is no file
    (tmp_path / "one").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "one" / "a.png")
    assert isinstance(as_dataset(str(tmp_path)), ImageFolder)


def test_what_has_length_and_places_is_taken_as_it_is():
    class Mine:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return index, index

    mine = Mine()
    assert as_dataset(mine) is mine
    tensors = TensorDataset(torch.zeros(2, 1), torch.tensor([1, 0]))
    assert as_dataset(tensors) is tensors


@pytest.mark.parametrize("data", [(x for x in range(3)), iter([1]), {"a": 1}, 7, None])
def test_what_is_no_dataset_is_refused(data):
    with pytest.raises(ConfigurationError):
        as_dataset(data)


def test_iterable_datasets_are_told_what_to_do():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    with pytest.raises(ConfigurationError, match="Stream can only be read from start to end"):
        as_dataset(Stream())


def test_wrong_arrays():
    with pytest.raises(ConfigurationError, match="4 inputs and 3 targets"):
        ArrayDataset(np.zeros((4, 2)), [0, 1, 0])
    with pytest.raises(EmptyDatasetError):
        ArrayDataset(np.zeros((0, 2)))
    with pytest.raises(LabelMismatchError, match="class numbers from 0 to 2, but 2 class names"):
        ArrayDataset(np.zeros((3, 1)), [0, 1, 2], classes=["a", "b"])
    with pytest.raises(LabelMismatchError, match="no value in 1 rows"):
        ArrayDataset(np.zeros((3, 1)), [0.5, float("nan"), 1.0])
    with pytest.raises(UnreadableSampleError, match="row 1 holds 5"):
        TextDataset(["a", 5])[1]


def test_labels_of_foreign_datasets():
    tensors = TensorDataset(torch.zeros(4, 1), torch.tensor([3, 2, 1, 0]))
    assert all_targets(tensors).tolist() == [3, 2, 1, 0]
    assert all_targets(TorchSubset(tensors, [1, 3])).tolist() == [2, 0]
    named = ArrayDataset(np.zeros((2, 1)), ["a", "b"])
    assert label_names(TorchSubset(named, [0])) == ["a", "b"]
    assert sample_name(TorchSubset(named, [1]), 0) == "row 1"
    joined = ConcatDataset([named, named])
    assert (label_names(joined), all_targets(joined).tolist()) == (["a", "b"], [0, 1, 0, 1])
    with pytest.raises(LabelMismatchError, match="name their classes differently"):
        label_names(ConcatDataset([named, ArrayDataset(np.zeros((1, 1)), ["c"])]))
    with pytest.raises(ConfigurationError, match="no targets"):
        all_targets(ArrayDataset(np.zeros((2, 1))))


def test_targets_of_torchvision_follow_its_target_transform(tmp_path):
    from torchvision.datasets import ImageFolder as VisionFolder

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (2, 2)).save(tmp_path / name / "x.png")
    dataset = VisionFolder(str(tmp_path), target_transform=lambda number: 10 + number)
    assert all_targets(dataset).tolist() == [10, 11]
    assert label_names(dataset) == ["a", "b"]
    assert sample_name(dataset, 1).endswith("b/x.png")


def test_split_is_stratified_disjoint_and_repeatable():
    dataset = ArrayDataset(np.arange(50)[:, None], [0] * 30 + [1] * 20, classes=["a", "b"])
    train, validation = split(dataset, 0.2, seed=1)
    assert (len(train), len(validation)) == (40, 10)
    assert np.bincount(validation.targets).tolist() == [6, 4]  # 30 : 20 of 10
    assert sorted([*train.indices, *validation.indices]) == list(range(50))
    assert train.classes == ["a", "b"]
    assert validation.sample_name(0) == f"row {validation.indices[0]}"
    assert split(dataset, 0.2, seed=1)[1].indices.tolist() == validation.indices.tolist()
    assert split(dataset, 0.2, seed=2)[1].indices.tolist() != validation.indices.tolist()


def test_split_works_on_foreign_and_real_valued_data_and_refuses_empty_parts():
    train, validation = split(TensorDataset(torch.zeros(10, 1), torch.rand(10)), 0.3)
    assert (len(train), len(validation)) == (7, 3)
    for fraction in (0, 1, 0.01, 30):
        with pytest.raises(ConfigurationError, match="leaves a part empty"):
            split([1] * 10, fraction)
