from __future__ import annotations

import inspect

import pytest

from neurenix import errors
from neurenix.errors import NeurenixError, NeurenixWarning, UnknownNameError, nearest_names, plain_name

CLASSES = [entry for _, entry in inspect.getmembers(errors, inspect.isclass) if entry.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_is_ours_named_for_its_kind_and_explained(kind: type[BaseException]) -> None:
    assert kind.__doc__
    if issubclass(kind, Warning):
        assert issubclass(kind, NeurenixWarning) and kind.__name__.endswith("Warning")
    else:
        assert issubclass(kind, NeurenixError) and kind.__name__.endswith("Error")


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.UnknownNameError, LookupError),
        (errors.ConfigurationError, ValueError),
        (errors.MissingPackageError, ImportError),
        (errors.WeightsNotFoundError, FileNotFoundError),
        (errors.LabelMismatchError, ValueError),
        (errors.NonFiniteError, ArithmeticError),
        (errors.TrainingError, RuntimeError),
        (errors.NeurenixWarning, UserWarning),
    ],
)
def test_ordinary_except_clauses_work(kind: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(kind, builtin)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (["resnet50", "vit"], "There is no model 'resnet5'; closest: resnet50."),
        (["vit", "bert"], "There is no model 'resnet5'; known: bert, vit."),
        ([], "There is no model 'resnet5'; known: none."),
        ([f"x{k:02}" for k in range(31)], "There is no model 'resnet5'; 31 are known, none of them similar."),
    ],
)
def test_unknown_names_say_what_is_known(known: list[str], message: str) -> None:
    assert str(UnknownNameError("model", "resnet5", known)) == message


def test_near_names_come_best_first_and_few() -> None:
    known = ["resnet18", "resnet34", "resnet50", "resnet101", "vit"]
    assert nearest_names("ResNet-50", known)[0] == "resnet50"
    assert len(nearest_names("resnet", known)) == 3
    assert nearest_names("qqq", known) == []


def test_plain_name_joins_spellings() -> None:
    assert plain_name("EfficientNet-B7") == plain_name("efficientnet_b7") == plain_name("efficientnet b7")
