"""What a new user reads when an argument, a saved folder or a command line is wrong; and what help() and --help say."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import numpy
import pandas
import pytest
import torch
from PIL import Image
from tests.local_hub import flip_file
from torch import nn

import neurenix
from neurenix import errors
from neurenix.callbacks import Callback, EarlyStopping, ModelCheckpoint
from neurenix.cli import main
from neurenix.cli._arguments import described
from neurenix.transfer import Finetuner, load_pretrained_model, saving

SOURCE = Path(neurenix.__file__).parent


class Network(nn.Module):
    """A layer and a head, for rows of four numbers."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Linear(4, width), nn.ReLU())
        self.fc = nn.Linear(width, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layer1(rows))


@pytest.fixture
def data() -> tuple[numpy.ndarray, numpy.ndarray]:
    return numpy.random.default_rng(0).normal(size=(12, 4)).astype("float32"), numpy.arange(12) % 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": "2"}, "num_classes='2' is of type str; possible: a whole number or None"),
        ({"num_classes": 2.0}, "num_classes=2.0"),
        ({"num_classes": True}, "num_classes=True"),
        ({"head_hidden_sizes": [1.5]}, "a list of whole numbers"),
        ({"learning_rate": "0.1"}, "learning_rate='0.1'"),
        ({"layer_learning_rates": {"fc": "fast"}}, "a mapping of a word to a number"),
        ({"seed": "a"}, "seed='a'"),
        ({"freeze_layers": 5}, "freeze_layers"),
        ({"dropout_rate": None}, "dropout_rate=None"),
    ],
)
def test_an_argument_of_the_wrong_type_is_named(arguments, message):
    with pytest.raises(errors.ConfigurationError, match=message):
        Finetuner(Network(), **{"num_classes": 3, **arguments})


def test_one_where_several_are_possible_and_numbers_of_numpy(data, tmp_path):
    tuner = Finetuner(
        Network(), numpy.int64(3), metrics="accuracy", head_hidden_sizes=16, class_weights=numpy.ones(3, "float32")
    )
    assert tuner.settings.metrics == ["accuracy"] and tuner.settings.head_hidden_sizes == [16]
    tuner.fit(data, data, epochs=1, callbacks=EarlyStopping())
    tuner.save(tmp_path)
    assert Finetuner.load(tmp_path, model=Network()).settings == tuner.settings


@pytest.mark.parametrize("model", ["resnet18", Network, 3])
def test_what_is_no_model(model):
    with pytest.raises(errors.ConfigurationError, match=r"load_pretrained_model\('resnet18'\)|a torch module"):
        Finetuner(model, num_classes=3)


def test_an_input_shape_that_is_one_number():
    with pytest.raises(errors.ConfigurationError, match=r"input_shape=64; it is \(height, width, channels\)"):
        load_pretrained_model("resnet18", weights=None, input_shape=64)


class Misspelt(Callback):
    """Would be called at no epoch's end."""

    def on_epoch_ends(self, epoch, logs):
        """Never called."""


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epochs": 1.5}, errors.ConfigurationError, "epochs=1.5"),
        ({"epochs": 2.0}, errors.ConfigurationError, "epochs=2.0"),
        ({"batch_size": 2.5}, errors.ConfigurationError, "batch_size=2.5"),
        ({"num_workers": "2"}, errors.ConfigurationError, "num_workers='2'"),
        ({"callbacks": [EarlyStopping]}, errors.ConfigurationError, r"the class EarlyStopping; make one"),
        ({"callbacks": [print]}, errors.ConfigurationError, "no callback"),
        ({"callbacks": 3}, errors.ConfigurationError, "no callback"),
        ({"callbacks": [Misspelt()]}, errors.UnknownNameError, "on_epoch_end,"),
        ({"callbacks": EarlyStopping()}, errors.UnknownNameError, r"val_loss.*Give fit\(\) a validation dataset"),
        ({"callbacks": EarlyStopping("acuracy")}, errors.UnknownNameError, "closest: accuracy"),
        ({"callbacks": ModelCheckpoint("best", save_best_only=True)}, errors.UnknownNameError, "val_loss"),
    ],
)
def test_a_fit_that_cannot_be_is_refused_before_its_first_step(data, arguments, error, message):
    tuner = Finetuner(Network(), num_classes=3)
    with pytest.raises(error, match=message):
        tuner.fit(data, **{"epochs": 1, **arguments})
    assert not tuner.history


def test_a_saved_tuning_put_into_another_module(data, tmp_path):
    Finetuner(Network(), num_classes=3).save(tmp_path)
    with pytest.raises(errors.WeightsMismatchError, match="Network is not the module that was tuned: size mismatch"):
        Finetuner.load(tmp_path, model=Network(width=8))
    other = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 2))
    with pytest.raises(errors.WeightsMismatchError, match="Sequential is not the module that was tuned"):
        Finetuner.load(tmp_path, model=other)


@pytest.mark.parametrize("harm", [flip_file, Path.unlink])
def test_damaged_weights_of_ones_own_cannot_be_fetched_again(tmp_path, harm):
    Finetuner(Network(), num_classes=3).save(tmp_path)
    harm(next(tmp_path.glob("*.safetensors")))
    with pytest.raises(errors.DamagedFileError, match="from a copy") as caught:
        Finetuner.load(tmp_path, model=Network())
    assert "fetch" not in str(caught.value)


def test_a_place_where_nothing_can_be_saved(tmp_path, monkeypatch):
    tuner = Finetuner(Network(), num_classes=3)
    (tmp_path / "file").write_text("here already")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(errors.ConfigurationError, match="nothing can be saved to .*file"):
            tuner.save(place)

    def refuse(path, tensors):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(saving, "write_tensors", refuse)
    with pytest.raises(errors.ConfigurationError, match="Permission denied"):
        tuner.save(tmp_path / "new")


def test_weights_and_modules_are_called_what_they_are(data):
    with pytest.raises(errors.UnknownNameError, match="There is no set of weights for resnet18 called 'imagnet'"):
        load_pretrained_model("resnet18", weights="imagnet")
    assert "Network" in str(Finetuner(Network(), num_classes=3).summary())


def test_a_history_is_a_table(data):
    history = Finetuner(Network(), num_classes=3).fit(data, data, epochs=2)
    frame = pandas.DataFrame(history.epochs)
    assert len(frame) == 2 and {"epoch", "loss", "val_accuracy"} <= set(frame.columns)


PACKAGES = [path.parent.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("__init__.py") if path.parent != SOURCE]


@pytest.mark.parametrize("package", sorted(set(PACKAGES) - {"cli", "demos"}))
def test_help_lists_every_public_name(package):
    tree = ast.parse((SOURCE / package / "__init__.py").read_text())
    imported = [alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    public = {alias.name for alias in imported if alias.asname == alias.name}
    assert set(importlib.import_module(f"neurenix.{package.replace('/', '.')}").__all__) == public


def test_every_option_of_fit_is_described(capsys):
    assert main(["fit", "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("full, partial, head, progressive, lp_ft or auto", "adam, adamw, sgd", "Passes over the training"):
        assert words in printed
    arguments = set(Finetuner.__init__.__annotations__) - {"return"}
    assert set(described(Finetuner)) == arguments


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("train", "test"):
        for number, name in enumerate(("blue", "red")):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for place in range(2):
                picture = numpy.full((40, 40, 3), 100 * number + place, dtype="uint8")
                Image.fromarray(picture).save(tmp_path / "data" / part / name / f"{place}.png")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("option", "message"),
    [("--strategy=hed", "head"), ("--model=resnet81", "resnet18"), ("--epochs=0", "at least one")],
)
def test_a_wrong_command_is_told_before_any_data_is_read(tmp_path, capsys, option, message):
    assert main(["fit", "--data", str(tmp_path / "nowhere"), option]) == 2
    assert message in capsys.readouterr().err


def test_the_command_line_with_a_small_test_set_and_a_folder_to_predict(folder, tmp_path, capsys):
    for path in (folder / "test" / "blue").iterdir():
        path.unlink()
    (folder / "test" / "blue").rmdir()
    fit = f"fit --data {folder} --model resnet18 --weights null --input-shape 32,32,3 --strategy head --epochs 1"
    assert main([*fit.split(), "--output", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out.split("loaded again, says:")[1]
    assert [printed.count(f"red/{place}.png") for place in range(2)] == [1, 1]
    assert main(["predict", "--model", str(tmp_path / "run" / "model"), str(folder / "test")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["predict", "--model", str(tmp_path / "run" / "model"), "nowhere"]) == 2
    assert "no such file or folder: nowhere" in capsys.readouterr().err


def test_a_table_needs_no_kind_and_no_columns_with_usual_names(tmp_path):
    from neurenix.cli._data import part_of

    pandas.DataFrame({"text": ["good", "bad"], "label": [1, 0]}).to_csv(tmp_path / "t.csv", index=False)
    assert part_of(str(tmp_path / "t.csv"), "train").kind == "text"
    pandas.DataFrame({"text": ["good", "bad"], "stars": [1, 0]}).to_csv(tmp_path / "u.csv", index=False)
    with pytest.raises(errors.ConfigurationError, match="--target: text, stars"):
        part_of(str(tmp_path / "u.csv"), "train")
