"""What happens to wrong input across the public interface: the right error by name, with what came and what to do."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from tests.local_hub import flip_file, write_tokenizer
from torch import nn

import neurenix
from neurenix import errors
from neurenix.callbacks import EarlyStopping
from neurenix.data import DataLoader, ImageFolder, TableDataset, as_dataset
from neurenix.storage import write_tensors
from neurenix.text import TextPreprocess
from neurenix.transfer import FeatureExtractor, Finetuner, load_pretrained_model


class Network(nn.Module):
    """A convolution, a mean, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv1(images).mean((2, 3)))


@pytest.fixture
def tuner() -> Finetuner:
    return Finetuner(Network(), num_classes=2)


@pytest.fixture
def data() -> tuple[numpy.ndarray, numpy.ndarray]:
    images = numpy.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype("float32")
    return images, numpy.arange(8) % 2


@pytest.fixture(scope="module")
def resnet():
    return load_pretrained_model("resnet18", weights=None, input_shape=(64, 64, 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cats", "dogs"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            picture = numpy.random.default_rng(number).integers(0, 256, (80, 80, 3), dtype="uint8")
            Image.fromarray(picture).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model_name": "resnet5o"}, errors.UnknownNameError, "resnet50"),
        ({"model_name": "resnet18", "domain": "nlp"}, errors.ConfigurationError, "vision"),
        ({"model_name": "resnet18", "domain": "visoin"}, errors.NeurenixError, "vision"),
        ({"model_name": "resnet18", "weights": "imagnet"}, errors.NeurenixError, "imagenet"),
        ({"model_name": "resnet18", "pooling": "average2"}, errors.UnknownNameError, "avg"),
        ({"model_name": "resnet18", "device": "cuda:7"}, errors.ConfigurationError, "cpu"),
        ({"model_name": "resnet18", "device": "gpu"}, errors.ConfigurationError, "cuda"),
        ({"model_name": "resnet18", "input_shape": (224, 224)}, errors.ConfigurationError, "input_shape"),
        ({"model_name": "resnet18", "max_length": 12}, errors.ConfigurationError, "max_length"),
        ({"model_name": "bert-base-uncased", "max_length": 9999}, errors.ConfigurationError, "512"),
    ],
)
def test_loading(arguments, error, message):
    with pytest.raises(error, match=message):
        load_pretrained_model(**{"weights": None, **arguments})


def test_weights_that_cannot_be_reached_say_how_to_provide_them():
    with pytest.raises(errors.WeightsNotFoundError, match="weights=") as caught:
        load_pretrained_model("resnet50", weights="imagenet")
    assert "timm/resnet50" in str(caught.value)


def test_a_weights_file_that_does_not_exist(tmp_path):
    with pytest.raises(errors.WeightsNotFoundError, match="nowhere"):
        load_pretrained_model("resnet18", weights=tmp_path / "nowhere.safetensors")


def test_weights_of_another_architecture(tmp_path):
    write_tensors(tmp_path / "other.safetensors", nn.Linear(3, 3).state_dict())
    with pytest.raises(errors.WeightsMismatchError, match="pretrained"):
        load_pretrained_model("resnet18", weights=tmp_path / "other.safetensors")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pth")
    (tmp_path / "plain.bin").write_bytes(pickle.dumps(Bomb(), protocol=2))
    for name in ("bomb.pth", "plain.bin"):
        with pytest.raises(errors.WeightsError, match=name):
            load_pretrained_model("resnet18", weights=tmp_path / name)
    assert not (tmp_path / "canary").exists()


def test_a_truncated_safetensors_file(tmp_path):
    write_tensors(tmp_path / "w.safetensors", {"a": torch.zeros(100)})
    content = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(content[:-40])
    with pytest.raises(errors.DamagedFileError, match=r"w\.safetensors"):
        load_pretrained_model("resnet18", weights=tmp_path / "w.safetensors")


def test_an_unknown_layer_lists_the_nearest(resnet):
    with pytest.raises(errors.UnknownNameError, match="layer4"):
        FeatureExtractor(resnet, layers=["layer5"])(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"batch_size": 0}, errors.ConfigurationError, "batch_size=0"),
        ({"epochs": 0}, errors.ConfigurationError, "epochs=0"),
        ({"num_workers": -1}, errors.ConfigurationError, "num_workers=-1"),
        ({"callbacks": [EarlyStopping(monitor="val_acuracy")]}, errors.UnknownNameError, "val_accuracy"),
    ],
)
def test_fitting(tuner, data, settings, error, message):
    with pytest.raises(error, match=message):
        tuner.fit(data, data, **{"epochs": 1, **settings})


def test_data_without_targets(tuner, data):
    with pytest.raises(errors.LabelMismatchError, match="targets"):
        tuner.fit(data[0], epochs=1)


def test_values_where_class_numbers_are_needed(tuner, data):
    with pytest.raises(errors.LabelMismatchError, match="mse"):
        tuner.fit((data[0], data[1] + 0.5), epochs=1)


def test_a_class_number_that_the_head_does_not_have(tuner, data):
    with pytest.raises(errors.LabelMismatchError, match="class number 3"):
        tuner.fit((data[0], data[1] * 3), epochs=1)


def test_unequal_lengths(tuner, data):
    with pytest.raises(errors.NeurenixError, match="8"):
        tuner.fit((data[0], data[1][:5]), epochs=1)


def test_a_loss_that_is_not_a_number(tuner, data):
    with pytest.raises(errors.NonFiniteError, match="NaN"):
        tuner.fit((data[0] * numpy.nan, data[1]), epochs=1)


def test_iterable_datasets(tuner):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([])

    with pytest.raises(errors.ConfigurationError, match="map-style|len"):
        tuner.fit(Stream())


def test_a_loader_with_a_sampler_of_its_own(tuner, data):
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(data[0]), torch.from_numpy(data[1]))
    sampler = torch.utils.data.WeightedRandomSampler([1.0] * 8, 8)
    with pytest.raises(errors.ConfigurationError, match="balanced"):
        tuner.fit(torch.utils.data.DataLoader(dataset, sampler=sampler), epochs=1)


def test_images_of_different_sizes(tuner):
    ragged = [(torch.zeros(3, size, size), 0) for size in (8, 9)]
    with pytest.raises(errors.DataError, match=r"different shapes"):
        tuner.fit(ragged, epochs=1)


def test_probabilities_of_a_regression(data):
    with pytest.raises(errors.ConfigurationError, match="regression"):
        Finetuner(Network(), num_classes=1, loss="mse").predict_proba(data[0])


def test_an_empty_folder(tmp_path):
    with pytest.raises(errors.EmptyDatasetError, match="class"):
        ImageFolder(tmp_path)
    with pytest.raises(errors.NeurenixError, match="nowhere"):
        ImageFolder(tmp_path / "nowhere")


def test_images_without_class_folders(folder):
    with pytest.raises(errors.EmptyDatasetError, match="class folder|folder per class|class folders"):
        ImageFolder(folder / "cats")


def test_one_broken_image_among_good_ones(folder, resnet):
    (folder / "cats" / "1.png").write_bytes(b"no image")
    with pytest.raises(errors.UnreadableSampleError, match=r"1\.png"):
        Finetuner(resnet, num_classes=2).fit(ImageFolder(folder), epochs=1)
    skipping = DataLoader(ImageFolder(folder, transform=lambda image: torch.zeros(3), on_bad="skip"), batch_size=2)
    with pytest.warns(errors.SkippedSamplesWarning, match=r"1\.png"):
        assert sum(len(batch) for batch in skipping) == 5
    assert [bad.index for bad in skipping.skipped] == [1]


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.full((4, 3, 64, 64), 200.0), errors.InputMismatchError, "255|0..255|0 to 255"),
        (torch.zeros(4, 64, 64, 3), errors.InputMismatchError, "channels"),
        (torch.zeros(4, 1, 64, 64), errors.InputMismatchError, "channel"),
        (torch.zeros(4, 3, 64, 64, dtype=torch.float64), errors.NeurenixError, "float"),
    ],
)
def test_inputs_unlike_what_the_weights_expect(resnet, images, error, message):
    with pytest.raises(error, match=message):
        Finetuner(resnet, num_classes=2).fit((images, torch.zeros(4, dtype=torch.long)), epochs=1)


def test_a_text_longer_than_the_model_reads(tmp_path):
    write_tokenizer(tmp_path, "bert")
    texts = [("good film " * 40, 0), ("bad", 1)]
    strict = TextPreprocess(tmp_path, 8, on_long="raise")
    with pytest.raises(errors.TextTooLongError, match="8"):
        strict.wrap(as_dataset(texts), training=False)
    with pytest.warns(errors.TruncatedTextWarning, match="1 "):
        TextPreprocess(tmp_path, 8).wrap(as_dataset(texts), training=False)


def test_a_table_without_the_column(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\ngood,1\n")
    with pytest.raises(errors.UnknownNameError, match="label"):
        TableDataset(tmp_path / "t.csv", input="text", target="labels", kind="text")


def test_a_table_that_points_out_of_its_folder(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "t.csv").write_text("path,label\n../secret.png,1\n")
    with pytest.raises(errors.UnsafeFileError, match="secret"):
        TableDataset(tmp_path / "root" / "t.csv", input="path", target="label", kind="image", root=tmp_path / "root")[0]


def test_a_folder_that_is_no_saved_tuning(tmp_path):
    with pytest.raises(errors.ConfigurationError, match=r"neurenix\.json"):
        Finetuner.load(tmp_path)


def test_a_damaged_tuning(tuner, tmp_path):
    tuner.save(tmp_path)
    flip_file(next(tmp_path.glob("*.safetensors")))
    with pytest.raises(errors.DamagedFileError, match="SHA-256"):
        Finetuner.load(tmp_path, model=Network())


def test_a_tuning_of_ones_own_module_needs_the_module(tuner, tmp_path):
    tuner.save(tmp_path)
    with pytest.raises(errors.ConfigurationError, match="model="):
        Finetuner.load(tmp_path)


def test_an_unknown_part_of_the_package():
    with pytest.raises(AttributeError, match="transfer"):
        neurenix.transfr  # noqa: B018
