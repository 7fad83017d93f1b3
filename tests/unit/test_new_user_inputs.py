"""What a new user hands over: one item, a folder too high, frames, texts, names. All of it works or is named."""

from __future__ import annotations

from pathlib import Path

import numpy
import pandas
import pytest
import torch
from PIL import Image
from tests.local_hub import write_text_checkpoint
from torch import nn

from neurenix import errors
from neurenix.data import ArrayDataset, ImageFolder, TableDataset, as_dataset, label_names, split
from neurenix.transfer import FeatureExtractor, Finetuner, load_pretrained_model

TEXTS = ["a great film", "a bad film", "great", "bad"] * 3


@pytest.fixture(scope="module")
def resnet():
    return load_pretrained_model("resnet18", weights=None, input_shape=(32, 32, 3), device="cpu")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    write_text_checkpoint(folder, "bert")
    return load_pretrained_model("bert-base-uncased", weights=folder, max_length=16, device="cpu")


@pytest.fixture
def pictures() -> numpy.ndarray:
    return numpy.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), dtype="uint8")


@pytest.fixture
def folder(tmp_path: Path, pictures: numpy.ndarray) -> Path:
    for part in ("train", "val"):
        for number, name in enumerate(("cats", "dogs", "owls")):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for place in range(2):
                path = tmp_path / "images" / part / name / f"{place}.png"
                Image.fromarray(pictures[2 * number + place]).save(path)
    return tmp_path / "images"


def head(model, num_classes=3, **arguments) -> Finetuner:
    return Finetuner(model, num_classes=num_classes, strategy="head", **arguments)


def test_evaluate_and_find_lr_look_at_their_inputs_as_fit_does(resnet, pictures):
    raw = torch.from_numpy(pictures[:, :32, :32]).permute(0, 3, 1, 2).float()
    tuner = head(resnet)
    for use in (tuner.fit, tuner.evaluate, tuner.find_lr):
        with pytest.raises(errors.InputMismatchError, match=r"0\.\.255"):
            use((raw, [0, 0, 1, 1, 2, 2]))


def test_features_are_taken_only_of_inputs_that_fit(resnet, pictures, tmp_path):
    raw = torch.from_numpy(pictures[:, :32, :32]).permute(0, 3, 1, 2).float()
    extractor = FeatureExtractor(resnet)
    dataset = ArrayDataset(raw, numpy.arange(6))
    for use in (
        lambda: extractor(raw),
        lambda: extractor.extract(dataset, progress=False),
        lambda: extractor.cache_features(dataset, cache_dir=tmp_path, progress=False),
    ):
        with pytest.raises(errors.InputMismatchError, match=r"0\.\.255"):
            use()
    with pytest.raises(errors.InputMismatchError, match="NaN"):
        extractor(raw * numpy.nan)


def test_channels_last_reals_are_told_to_come_as_bytes(resnet, pictures):
    with pytest.raises(errors.InputMismatchError, match="uint8") as caught:
        head(resnet).fit((pictures / 255.0, [0, 0, 1, 1, 2, 2]))
    assert str(caught.value).index("uint8") < str(caught.value).index("permute")


def test_one_image_gives_one_answer(resnet, pictures, folder):
    tuner = head(resnet)
    expected = tuner.predict_proba(pictures)[:1]
    one = pictures[0]
    ready = resnet.preprocess(one)
    path = folder / "train" / "cats" / "0.png"
    for item in (one, torch.from_numpy(one).permute(2, 0, 1), Image.fromarray(one), path, str(path), [path], ready):
        numpy.testing.assert_allclose(tuner.predict_proba(item), expected, atol=1e-3)
    assert tuner.predict(one[:, :, 0]).shape == (1,)
    assert tuner.predict(pictures[:, :, :, 0]).shape == (6,)


def test_grey_images_for_a_grey_model_are_a_batch(pictures):
    grey = load_pretrained_model("resnet18", weights=None, input_shape=(32, 32, 1), device="cpu")
    assert head(grey).predict(pictures[:3, :, :, 0]).shape == (3,)


def test_a_folder_of_images_is_asked_about_image_by_image(resnet, folder):
    tuner = head(resnet)
    assert tuner.predict(folder / "train" / "cats").shape == (2,)
    assert tuner.predict(folder / "train").shape == (6,)
    with pytest.raises(errors.ConfigurationError, match=r"table among image files"):
        tuner.predict([folder / "train" / "cats" / "0.png", "answers.csv"])
    with pytest.raises(errors.ConfigurationError, match="no such file"):
        tuner.predict("nowhere.png")


def test_one_text_gives_one_answer(bert):
    tuner = head(bert, 2)
    expected = tuner.predict_proba(TEXTS)
    numpy.testing.assert_allclose(tuner.predict_proba(TEXTS[0]), expected[:1], atol=1e-3)
    for many in (numpy.array(TEXTS), pandas.Series(TEXTS), tuple(TEXTS)):
        numpy.testing.assert_allclose(tuner.predict_proba(many), expected, atol=1e-3)


def test_images_for_a_text_model_and_texts_for_an_image_model(bert, resnet, pictures, folder):
    with pytest.raises(errors.ConfigurationError, match="this is a text model"):
        head(bert).predict(pictures)
    with pytest.raises(errors.InputMismatchError, match="this is a text model"):
        head(bert).fit(folder / "train")
    with pytest.raises(errors.InputMismatchError, match="this is an image model"):
        head(resnet, 2).fit((TEXTS, [0, 1] * 6))


def test_a_folder_one_level_too_high(resnet, folder):
    with pytest.raises(errors.ConfigurationError, match=r"train and val, which are parts.*images/train"):
        head(resnet, 2).fit(folder)


def test_images_beside_the_class_folders(folder, pictures):
    Image.fromarray(pictures[0]).save(folder / "train" / "loose.png")
    with pytest.warns(errors.NeurenixWarning, match=r"1 images lie directly.*loose\.png"):
        assert len(ImageFolder(folder / "train")) == 6


def test_classes_are_known_by_their_names(resnet, folder):
    tuner = head(resnet)
    tuner.fit(folder / "train", folder / "val", epochs=1)
    everything = tuner.predict_proba(folder / "val")
    for name in ("cats", "owls"):
        for picture in (folder / "val" / name).iterdir():
            picture.unlink()
        (folder / "val" / name).rmdir()
    numpy.testing.assert_allclose(tuner.predict_proba(folder / "val"), everything[2:4], atol=1e-3)
    loss = -numpy.log(everything[2:4, 1]).mean()
    assert tuner.evaluate(folder / "val")["loss"] == pytest.approx(loss, rel=0.02)
    assert "val_loss" in tuner.fit(folder / "train", folder / "val", epochs=1).epochs[-1]
    (folder / "val" / "dogs").rename(folder / "val" / "zebras")
    with pytest.raises(errors.LabelMismatchError, match="zebras was not in training; the model knows cats, dogs, owls"):
        tuner.evaluate(folder / "val")
    assert len(tuner.predict(folder / "val")) == 2


def test_names_for_a_model_that_was_tuned_on_numbers(resnet, folder, pictures):
    tuner = head(resnet, 4)
    tuner.fit((pictures, [0, 0, 1, 1, 2, 3]), epochs=1)
    with pytest.raises(errors.LabelMismatchError, match="tuned on class numbers"):
        tuner.evaluate(folder / "train")


def test_a_fit_that_fails_at_the_door_leaves_no_names(resnet, folder, pictures):
    tuner = head(resnet)
    with pytest.raises(errors.NeurenixError):
        tuner.fit(folder / "train", (pictures, [0, 0, 1, 1, 2, 9]), epochs=1)
    assert tuner.model.categories == ()


def test_one_class_is_no_class(resnet, folder):
    with pytest.raises(errors.LabelMismatchError, match=r"only one class \(cats\)"):
        head(resnet, 2).fit(([*(folder / "train" / "cats").iterdir()], ["cats"] * 2))


def test_frames_of_numbers():
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.fc(rows)

    frame = pandas.DataFrame({"a": range(6), "b": [0.5] * 6})
    answers = pandas.DataFrame({"y": ["no", "yes"] * 3})
    tuner = Finetuner(Rows(), num_classes=2)
    tuner.fit((frame, answers), epochs=1)
    assert tuner.model.categories == ("no", "yes")
    assert len(as_dataset((frame, pandas.Series([1, 0] * 3)))) == 6
    with pytest.raises(errors.ConfigurationError, match="columns c hold no numbers"):
        as_dataset((frame.assign(c="x"), answers))


def test_paths_where_fit_takes_them(resnet, folder, tmp_path):
    features, targets = FeatureExtractor(resnet).extract(folder / "train", progress=False)
    assert features.shape == (6, 512) and targets.tolist() == [0, 0, 1, 1, 2, 2]
    cached = FeatureExtractor(resnet).cache_features(str(folder / "train"), cache_dir=tmp_path / "c", progress=False)
    assert len(cached) == 6
    assert [len(part) for part in split(folder / "train", 0.5)] == [3, 3]


def test_a_32_bit_image_is_named(tmp_path):
    for number, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        Image.fromarray(numpy.full((4, 4), number, dtype="int32")).save(tmp_path / name / "deep.tiff")
    with pytest.raises(errors.UnreadableSampleError, match=r"deep\.tiff"):
        ImageFolder(tmp_path)[0]


def test_absolute_paths_in_tables(folder, tmp_path):
    paths = sorted(str(path) for path in (folder / "train").rglob("*.png"))
    frame = pandas.DataFrame({"path": paths, "label": ["a", "b", "c"] * 2})
    assert TableDataset(frame)[5][0].size == (40, 40)
    with pytest.raises(errors.ConfigurationError, match="root=FOLDER"):
        TableDataset(frame.assign(path="images/a.png"))
    (tmp_path / "tables").mkdir()
    frame.to_csv(tmp_path / "tables" / "t.csv")
    with pytest.raises(errors.UnsafeFileError, match=r"row 0.*TableDataset\(table, root=FOLDER\)"):
        TableDataset(tmp_path / "tables" / "t.csv")
    assert len(TableDataset(tmp_path / "tables" / "t.csv", root=folder)) == 6


def test_what_is_no_text_is_named(bert):
    with pytest.raises(errors.UnreadableSampleError, match=r"row 0 holds 3 \(int\)"):
        head(bert, 2).fit(([3, *TEXTS[1:]], [0, 1] * 6), epochs=1)


def test_a_table_with_unusual_columns(bert, tmp_path):
    pandas.DataFrame({"text": TEXTS, "stars": [0, 1] * 6}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(
        errors.LabelMismatchError, match=r"columns: text, stars.*TableDataset\(table, input=…, target=…\)"
    ):
        head(bert, 2).fit(tmp_path / "t.csv", epochs=1)
    assert head(bert, 2).predict(tmp_path / "t.csv").shape == (12,)


def test_several_labels_by_their_names(resnet, pictures):
    names = [["round"], ["red", "round"], [], {"red"}, ("red", "round"), ["round"]]
    dataset = as_dataset((pictures, names))
    assert label_names(dataset) == ["red", "round"]
    assert dataset.targets.tolist() == [[0, 1], [1, 1], [0, 0], [1, 0], [1, 1], [0, 1]]
    tuner = head(resnet, 2, loss="binary_cross_entropy")
    tuner.fit((pictures, names), epochs=1)
    assert tuner.predict(pictures).shape == (6, 2)
    assert "f1_score" in tuner.evaluate((pictures[:2], [["round"], ["round"]]))
    with pytest.raises(errors.LabelMismatchError, match="row 1"):
        as_dataset((pictures, [["red"], None, *names[2:]]))
    with pytest.raises(errors.LabelMismatchError, match="binary_cross_entropy"):
        head(resnet, 2).fit((pictures, names), epochs=1)
    assert as_dataset((pictures, numpy.array([["a"], ["b"]] * 3))).targets.tolist() == [0, 1] * 3
